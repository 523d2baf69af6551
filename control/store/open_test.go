package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSecondOpenIsRefused(t *testing.T) {
	t.Parallel()
	s, dir := openNew(t)
	_, err := Open(dir)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), s.Path()) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.View(func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("View of a closed store: %v", err)
	}
	reopen(t, dir)
}

func TestHeld(t *testing.T) {
	t.Parallel()
	s, dir := openNew(t)
	if held, err := Held(dir); err != nil || !held {
		t.Errorf("open: %v, %v", held, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if held, err := Held(dir); err != nil || held {
		t.Errorf("closed: %v, %v", held, err)
	}
	none := filepath.Join(dir, "none")
	if held, err := Held(none); err != nil || held {
		t.Errorf("no state: %v, %v", held, err)
	}
	if _, err := os.Stat(none); !errors.Is(err, os.ErrNotExist) {
		t.Error("asking made the directory")
	}
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte("x"), fileMode); err != nil {
		t.Fatal(err)
	}
	if held, err := Held(dir); held || !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged: %v, %v", held, err)
	}
}

// Many at once on a new directory: one gets it, the others are told, and all mean the same file.
func TestConcurrentFirstOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const openers = 8
	results := make(chan error, openers)
	stores := make(chan *Store, openers)
	for range openers {
		go func() {
			s, err := Open(dir)
			if err == nil {
				stores <- s
			}
			results <- err
		}()
	}
	for range openers {
		if err := <-results; err != nil && !errors.Is(err, ErrInUse) {
			t.Error(err)
		}
	}
	if len(stores) != 1 {
		t.Fatalf("%d of %d have opened it", len(stores), openers)
	}
	if err := (<-stores).Close(); err != nil {
		t.Fatal(err)
	}
	reopen(t, dir)
	if names := fileNames(t, dir); !slices.Equal(names, []string{fileName}) {
		t.Errorf("left in the directory: %v", names)
	}
}

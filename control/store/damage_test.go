package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

func fileNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestMigration(t *testing.T) {
	t.Parallel()
	s, dir := openNew(t)
	update(t, s, func(tx *Tx) error { return tx.PutNode(testNode(1, "a")) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken step")
	rename := func(tx *bbolt.Tx) error { return (&Tx{tx}).PutNode(testNode(1, "migrated")) }
	_, err := open(dir, append(schema(), rename, func(*bbolt.Tx) error { return broken }))
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "from schema 2 to 3") {
		t.Errorf("failing migration: %v", err)
	}
	// It has left version 1 as it was, or this would be refused.
	if err := reopen(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	s, err = open(dir, append(schema(), rename))
	if err != nil {
		t.Fatal(err)
	}
	err = s.View(func(tx *Tx) error {
		if !tx.HasName("migrated") || tx.HasName("a") {
			t.Error("the migration has not run")
		}
		return nil
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir)
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "schema 2, this program knows up to 1") {
		t.Errorf("newer file: %v", err)
	}
}

func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	whole := func(t *testing.T, dir string) []byte {
		s := reopen(t, dir)
		for i := range byte(200) {
			update(t, s, func(tx *Tx) error {
				return tx.PutNode(testNode(i+1, fmt.Sprint("n", i),
					fmt.Sprint("10.0.0.", i)))
			})
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(s.Path())
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	page := os.Getpagesize()
	for name, damage := range map[string]func([]byte) []byte{
		"empty":            func([]byte) []byte { return nil },
		"not a state file": func([]byte) []byte { return []byte("hello") },
		"zeros":            func(data []byte) []byte { return make([]byte, len(data)) },
		"both heads":       func(data []byte) []byte { data[40] ^= 1; data[page+40] ^= 1; return data },
		"half":             func(data []byte) []byte { return data[:len(data)/2] },
		"heads only":       func(data []byte) []byte { return data[:2*page] },
		"content zeroed":   func(data []byte) []byte { clear(data[2*page:]); return data },
		"content ones": func(data []byte) []byte {
			for i := range data[2*page:] {
				data[2*page+i] = 0xff
			}
			return data
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			data := damage(whole(t, dir))
			path := filepath.Join(dir, fileName)
			if err := os.WriteFile(path, data, fileMode); err != nil {
				t.Fatal(err)
			}
			s, err := Open(dir)
			if err == nil {
				t.Fatal("it was opened", s.Close())
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v", err)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, data) {
				t.Errorf("the damaged file was changed: %v", err)
			}
		})
	}
}

// A file cut anywhere inside what it holds is refused; what bbolt keeps behind as reserve may be missing.
func TestTruncatedFiles(t *testing.T) {
	t.Parallel()
	s, dir := openNew(t)
	update(t, s, func(tx *Tx) error {
		var failed error
		for i := range byte(100) {
			failed = errors.Join(failed, tx.PutNode(testNode(i+1, fmt.Sprint("n", i), fmt.Sprint("10.0.0.", i))))
		}
		return failed
	})
	for i := range byte(8) { // moves the list of free pages to the front, where it survives the cut
		update(t, s, func(tx *Tx) error { return tx.PutNode(testNode(200+i, fmt.Sprint("late", i))) })
	}
	held := int64(0)
	if err := s.View(func(tx *Tx) error { held = tx.bolt.Size(); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	page := int64(os.Getpagesize())
	for size := int64(0); size <= held; size += page {
		cut := t.TempDir()
		if err := os.WriteFile(filepath.Join(cut, fileName), whole[:size], fileMode); err != nil {
			t.Fatal(err)
		}
		s, err := Open(cut)
		if err == nil {
			err = s.Close()
		}
		if size < held && !errors.Is(err, ErrDamaged) || size == held && err != nil {
			t.Errorf("%d of %d bytes: %v", size, held, err)
		}
	}
}

func TestForeignDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := bbolt.Open(filepath.Join(dir, fileName), fileMode, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
}

func TestLeftoversAreRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"state.db.new-123", "node.key.new-9", "other.new-1"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), fileMode); err != nil {
			t.Fatal(err)
		}
	}
	reopen(t, dir)
	if names := fileNames(t, dir); !slices.Equal(names, []string{"other.new-1", fileName}) {
		t.Errorf("left in the directory: %v", names)
	}
}

func TestVersionIsWritten(t *testing.T) {
	t.Parallel()
	s, _ := openNew(t)
	err := s.View(func(tx *Tx) error {
		if got := tx.bucket(bucketMeta).Get([]byte(keySchema)); !bytes.Equal(got,
			binary.BigEndian.AppendUint32(nil, 1)) {
			t.Errorf("schema version %x", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

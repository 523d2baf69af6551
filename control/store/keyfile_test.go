package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

func TestKeyFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := LoadKey(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	key, made, err := LoadOrCreateKey(dir, rand.Reader)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	again, made, err := LoadOrCreateKey(dir, iotest.ErrReader(errors.New("unused")))
	if err != nil || made || again.ID() != key.ID() {
		t.Fatal(made, err)
	}
	if names := fileNames(t, dir); !slices.Equal(names, []string{keyFileName}) {
		t.Errorf("left in the directory: %v", names)
	}
	before, err := os.ReadFile(KeyPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := SaveKey(dir, other); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second SaveKey: %v", err)
	}
	if after, err := os.ReadFile(KeyPath(dir)); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the keys were replaced: %v", err)
	}
}

func TestDamagedKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, content := range [][]byte{nil, []byte("hello"), make([]byte, 1<<20)} {
		if err := os.WriteFile(KeyPath(dir), content, fileMode); err != nil {
			t.Fatal(err)
		}
		_, made, err := LoadOrCreateKey(dir, rand.Reader)
		if !errors.Is(err, ErrDamaged) || made || !strings.Contains(err.Error(), KeyPath(dir)) {
			t.Errorf("%d bytes: %v, %v", len(content), made, err)
		}
	}
	if _, _, err := LoadOrCreateKey(t.TempDir(), iotest.ErrReader(errors.New("no entropy"))); err == nil {
		t.Error("keys out of nothing")
	}
}

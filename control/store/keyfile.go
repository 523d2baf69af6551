package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

const keyFileName = "node.key"

// KeyPath returns the path of the node's private keys in the state directory dir.
func KeyPath(dir string) string { return filepath.Join(dir, keyFileName) }

// LoadKey reads the node's private keys from the state directory dir. Errors, each naming the file:
// [fs.ErrNotExist], [ErrPermissions] with the command that mends it, [ErrDamaged].
func LoadKey(dir string) (*identity.Private, error) {
	path := KeyPath(dir)
	if err := checkOwnerOnly(path); err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, describe("open", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(file, identity.MaxEncodedPrivate+1))
	defer clear(text)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, describe("read", path, err)
	}
	key, err := identity.ParsePrivate(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", path, ErrDamaged, err)
	}
	return key, nil
}

// SaveKey writes the node's private keys to the state directory dir, complete and on disk or not at all. It
// never replaces keys that are there already: that is [fs.ErrExist].
func SaveKey(dir string, key *identity.Private) (err error) {
	path := KeyPath(dir)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return describe("make", dir, err)
	}
	text, err := key.Encode()
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer clear(text)
	temporary, err := os.CreateTemp(dir, keyFileName+temporarySuffix+"*") // made with mode 0600
	if err != nil {
		return describe("write", path, err)
	}
	defer func() { err = errors.Join(err, os.Remove(temporary.Name())) }()
	_, writeErr := temporary.Write(text)
	if err := errors.Join(writeErr, temporary.Sync(), temporary.Close()); err != nil {
		return describe("write", path, err)
	}
	if err := os.Link(temporary.Name(), path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("write %s: %w", path, fs.ErrExist)
		}
		return describe("write", path, err)
	}
	return describe("write", path, syncDir(dir))
}

// LoadOrCreateKey reads the node's keys, or makes and saves them from random at the first start. made tells
// which. The caller holds the state directory open with [Open], so that no two processes come here at once.
func LoadOrCreateKey(dir string, random io.Reader) (key *identity.Private, made bool, err error) {
	key, err = LoadKey(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if key, err = identity.Generate(random); err != nil {
		return nil, false, err
	}
	if err := SaveKey(dir, key); err != nil {
		key.Wipe()
		return nil, false, err
	}
	return key, true, nil
}

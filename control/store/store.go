package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

const (
	fileName        = "state.db"
	temporarySuffix = ".new-" // followed by random digits

	dirMode  = 0o700
	fileMode = 0o600

	leastSize = 2 * 4096 // two pages of the smallest size that is in use

	lockWait = 200 * time.Millisecond // long enough for bbolt to try the lock more than once
)

// Store is an open state directory. It is safe for concurrent use.
type Store struct {
	db   *bbolt.DB
	path string
}

// Open opens the state in directory dir, and makes both if they do not exist. It does not wait for another
// process to let go of the state. Errors, each naming the file: [ErrInUse], [ErrNewer], [ErrDamaged],
// [ErrPermissions], [ErrFull], [ErrReadOnly], and those of the file system.
func Open(dir string) (*Store, error) { return open(dir, schema()) }

func open(dir string, steps []migration) (*Store, error) {
	path := filepath.Join(dir, fileName)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, describe("make", dir, err)
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(dir, path); err != nil {
			return nil, err
		}
	}
	if err := checkOwnerOnly(path); err != nil {
		return nil, err
	}
	// Shorter than its two heads the file cannot be ours; bbolt would fill an empty one.
	if info, err := os.Stat(path); err == nil && info.Size() < leastSize {
		return nil, fmt.Errorf("open %s: %w: it has %d bytes", path, ErrDamaged, info.Size())
	}
	db, err := openFile(path)
	if err != nil {
		return nil, err
	}
	s := &Store{db: db, path: path}
	if err := guard(path, func() error { return errors.Join(s.checkSize(), s.migrate(steps)) }); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	removeLeftovers(dir)
	return s, nil
}

// create makes a state file under another name and gives it the right one only when it is complete and on
// disk, so that a crash on the way leaves no half-made state. A link, unlike a rename, does not replace the
// file that another process made meanwhile.
func create(dir, path string) error {
	temporary, err := os.CreateTemp(dir, fileName+temporarySuffix+"*")
	if err != nil {
		return describe("create", path, err)
	}
	defer os.Remove(temporary.Name()) //nolint:errcheck // removed again at the next Open
	if err := temporary.Close(); err != nil {
		return describe("create", path, err)
	}
	db, err := openFile(temporary.Name())
	if err != nil {
		return err
	}
	fresh := &Store{db: db, path: temporary.Name()}
	if err := errors.Join(fresh.initialise(), fresh.Close()); err != nil {
		return err
	}
	if err := os.Link(temporary.Name(), path); err != nil {
		if _, statErr := os.Lstat(path); statErr == nil {
			return nil // another process was faster; the lock decides who may use it
		}
		return describe("create", path, err)
	}
	return describe("create", path, syncDir(dir))
}

// removeLeftovers removes what a crash inside create or SaveKey left. Only the holder of the lock comes here,
// and no file that create is still working on can be of use to anybody any more.
func removeLeftovers(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // the state itself is open and well; what is left over costs a little disk until the next time
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, fileName+temporarySuffix) ||
			strings.HasPrefix(name, keyFileName+temporarySuffix) {
			_ = os.Remove(filepath.Join(dir, name)) // as above
		}
	}
}

func openFile(path string) (*bbolt.DB, error) {
	var db *bbolt.DB
	err := guard(path, func() (err error) {
		db, err = bbolt.Open(path, fileMode, &bbolt.Options{
			Timeout:      lockWait,
			FreelistType: bbolt.FreelistMapType,
			NoStatistics: true,
		})
		return describe("open", path, err)
	})
	return db, err
}

// Held reports whether a process has the state in directory dir open. It makes and changes nothing. A directory without
// state is held by nobody; other errors: those of [Open].
func Held(dir string) (bool, error) {
	path := filepath.Join(dir, fileName)
	err := guard(path, func() error {
		db, err := bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockWait, ReadOnly: true})
		if err != nil {
			return describe("open", path, err)
		}
		return describe("close", path, db.Close())
	})
	switch {
	case errors.Is(err, ErrInUse):
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	return false, err
}

// guard turns what a damaged file does to the reader of its memory map, panics and page faults, into
// [ErrDamaged].
func guard(path string, read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("open %s: %w: %v", path, ErrDamaged, cause)
		}
	}()
	return read()
}

// checkSize refuses a truncated file, the missing pages of which would fault later.
func (s *Store) checkSize() error {
	info, err := os.Stat(s.path)
	if err != nil {
		return describe("open", s.path, err)
	}
	return s.View(func(tx *Tx) error {
		if want := tx.bolt.Size(); info.Size() < want {
			return fmt.Errorf("open %s: %w: %d bytes of %d are there", s.path, ErrDamaged, info.Size(), want)
		}
		return nil
	})
}

// Path returns the path of the state file.
func (s *Store) Path() string { return s.path }

// Close closes the file after the transactions that run. It may be called again.
func (s *Store) Close() error { return describe("close", s.path, s.db.Close()) }

// View runs fn in a read transaction, which sees the state of one moment. fn must not keep tx. The error is
// fn's own as it is, or [ErrClosed].
func (s *Store) View(fn func(tx *Tx) error) error { return s.run(s.db.View, fn) }

// Update runs fn in a write transaction, one at a time, and writes the result to disk. fn must not keep tx,
// nor start another transaction. An error of fn is returned as it is and undoes everything; other errors:
// [ErrFull], [ErrReadOnly], [ErrClosed] and those of the file system, with the file's path. They undo
// everything as well.
func (s *Store) Update(fn func(tx *Tx) error) error { return s.run(s.db.Update, fn) }

// Batch is [Store.Update] for many callers at once: concurrent calls share one write to disk, at the price of
// up to 10 ms of waiting for each other. fn may be called more than once, and must set the variables it
// answers in anew each time.
func (s *Store) Batch(fn func(tx *Tx) error) error { return s.run(s.db.Batch, fn) }

func (s *Store) run(transact func(func(*bbolt.Tx) error) error, fn func(tx *Tx) error) error {
	var failed error
	err := transact(func(tx *bbolt.Tx) error {
		failed = fn(&Tx{tx})
		return failed
	})
	if failed != nil {
		return failed
	}
	return describe("write", s.path, err)
}

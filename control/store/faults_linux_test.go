package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onSmallDisk runs fn on a thread of its own, in a mount namespace of its own, with a file system of
// kilobytes at dir. The thread is not unlocked, so that it ends with the namespace.
func onSmallDisk(t *testing.T, kilobytes int, fn func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := mountSmallDisk(dir, kilobytes); err != nil {
			failed <- err
			return
		}
		defer close(failed)
		fn(dir)
	}()
	err := <-failed
	if errors.Is(err, unix.EPERM) {
		if held, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_ADMIN, 0, 0, 0); os.Geteuid() == 0 &&
			held == 1 {
			t.Fatal("root with CAP_SYS_ADMIN may not mount:", err)
		}
		t.Skip("needs the right to mount a file system (CAP_SYS_ADMIN)")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func mountSmallDisk(dir string, kilobytes int) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dk,mode=700", kilobytes))
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	onSmallDisk(t, 512, func(dir string) {
		s, err := Open(dir)
		if err != nil {
			t.Error(err)
			return
		}
		filler := filepath.Join(dir, "filler")
		if err := os.WriteFile(filler, make([]byte, 1<<20), fileMode); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("filling the disk: %v", err)
		}
		added := 0
		for err == nil {
			err = s.Update(func(tx *Tx) error {
				n := testNode(byte(added+1), fmt.Sprint("n", added))
				n.Certificate = make([]byte, 4000)
				return tx.PutNode(n)
			})
			if err == nil {
				added++
			}
		}
		if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), s.Path()) {
			t.Errorf("full disk after %d nodes: %v", added, err)
		}
		if nodes := countNodes(t, s); nodes != added {
			t.Errorf("%d nodes instead of %d", nodes, added)
		}
		// The same store works on as soon as there is room.
		err = errors.Join(os.Remove(filler), s.Update(func(tx *Tx) error {
			return tx.PutNode(testNode(0xfe,
				"last"))
		}), s.Close())
		if err != nil {
			t.Error(err)
		}
		if s, err = Open(dir); err != nil {
			t.Error(err)
			return
		}
		if nodes := countNodes(t, s); nodes != added+1 {
			t.Errorf("%d nodes after reopening instead of %d", nodes, added+1)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func countNodes(t *testing.T, s *Store) int {
	t.Helper()
	count := 0
	err := s.View(func(tx *Tx) error {
		nodes, err := tx.Nodes()
		count = len(nodes)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return count
}

func TestFullDiskAtFirstStart(t *testing.T) {
	t.Parallel()
	onSmallDisk(t, 64, func(dir string) {
		filler := filepath.Join(dir, "filler")
		if err := os.WriteFile(filler, make([]byte, 1<<20), fileMode); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("filling the disk: %v", err)
		}
		s, err := Open(dir)
		if err == nil {
			t.Error("opened on a full disk", s.Close())
			return
		}
		if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%v", err)
		}
		if _, _, err := LoadOrCreateKey(dir, zeros{}); !errors.Is(err, ErrFull) ||
			!strings.Contains(err.Error(), KeyPath(dir)) {
			t.Errorf("key: %v", err)
		}
		if names := fileNames(t, dir); len(names) != 1 {
			t.Errorf("left on the full disk: %v", names)
		}
		if err := os.Remove(filler); err != nil {
			t.Error(err)
		}
		if s, err = Open(dir); err != nil {
			t.Error(err)
			return
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	onSmallDisk(t, 512, func(dir string) {
		s, err := Open(dir)
		if err != nil {
			t.Error(err)
			return
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Error(err)
			return
		}
		for _, at := range []string{dir, filepath.Join(dir, "new")} {
			if _, err := Open(at); !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), at) {
				t.Errorf("%s: %v", at, err)
			}
		}
		if _, _, err := LoadOrCreateKey(dir, zeros{}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("key: %v", err)
		}
	})
}

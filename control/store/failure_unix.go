//go:build unix

package store

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

// checkOwnerOnly refuses a file that others than the owner can get at. Mending the mode silently would hide
// that the secret may have been read already.
func checkOwnerOnly(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return describe("open", path, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("open %s: %w (mode %04o): others may have read the secrets in it; "+
			"if not, close it with: chmod 600 %s", path, ErrPermissions, mode, path)
	}
	return nil
}

// syncDir puts the names in a directory on disk.
func syncDir(dir string) error {
	handle, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(handle.Sync(), handle.Close())
}

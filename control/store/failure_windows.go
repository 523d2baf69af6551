package store

import (
	"errors"

	"golang.org/x/sys/windows"
)

func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

func isReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

// checkOwnerOnly accepts everything: Windows has no mode bits, and files inherit the access list of the state
// directory, which the installer sets.
func checkOwnerOnly(string) error { return nil }

// syncDir does nothing: NTFS journals names by itself and has no call for it.
func syncDir(string) error { return nil }

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	berrors "go.etcd.io/bbolt/errors"
)

// describe says what was done to which file, and names the kinds of failure that callers tell apart.
func describe(operation, path string, err error) error {
	if err == nil {
		return nil
	}
	// The path below is the one that matters; the one inside may be a temporary name.
	if wrapped := (*fs.PathError)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if wrapped := (*os.LinkError)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var kind error
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%s %s: %w", operation, path, ErrInUse)
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		return fmt.Errorf("%s %s: %w", operation, path, ErrClosed)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum),
		errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrInvalidMapping):
		kind = ErrDamaged
	case isFull(err):
		kind = ErrFull
	case isReadOnly(err):
		kind = ErrReadOnly
	default:
		return fmt.Errorf("%s %s: %w", operation, path, err)
	}
	return fmt.Errorf("%s %s: %w (%w)", operation, path, kind, err)
}

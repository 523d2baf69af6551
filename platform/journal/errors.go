package journal

import (
	"errors"
	"fmt"
)

// Sentinels of this package.
var (
	// ErrLocked: another process has this journal open, so another daemon runs on the same state directory.
	ErrLocked = errors.New("journal is in use by another process")
	// ErrFull: a bound of this package is reached. Undo, or remove records of dead namespaces, to make room.
	ErrFull = errors.New("journal is full")
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("journal is closed")
	// ErrBroken: an earlier write could not be made durable or be rolled back; open the journal anew.
	ErrBroken = errors.New("journal could not be written")
	// ErrFormat: the file is not a journal, or is one of a newer version. It is not touched.
	ErrFormat = errors.New("not a journal of this version")
	// ErrUnknownKind: no undoer is registered for a record; it stays pending.
	ErrUnknownKind = errors.New("no undoer for this kind of change")
)

// UnsupportedError says that an operation on the host does not exist on this operating system. It matches
// [errors.ErrUnsupported]. The other platform packages return it too.
type UnsupportedError struct {
	// Op is the operation, for example "open the undo journal".
	Op string
	// GOOS is the operating system, as runtime.GOOS.
	GOOS string
}

// Error implements error.
func (e *UnsupportedError) Error() string { return fmt.Sprintf("%s: unsupported on %s", e.Op, e.GOOS) }

// Is reports whether target is [errors.ErrUnsupported].
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

package store

import "errors"

var (
	// ErrInUse is returned by [Open] when another process has the state directory open.
	ErrInUse = errors.New("state is in use by another running daemon")
	// ErrNewer is returned by [Open] for a file written by a newer version of this program.
	ErrNewer = errors.New("state was written by a newer version of this program")
	// ErrDamaged is returned for a file that is not, or no longer, a state file.
	ErrDamaged = errors.New("state file is damaged")
	// ErrFull is returned when the file system has no room, or the quota is used up. Nothing was changed.
	ErrFull = errors.New("disk full")
	// ErrReadOnly is returned when the file system is mounted read-only. Nothing was changed.
	ErrReadOnly = errors.New("file system is read-only")
	// ErrPermissions is returned for a file with secrets that others than its owner may read.
	ErrPermissions = errors.New("readable by others")
	// ErrNotFound is returned when there is no such record.
	ErrNotFound = errors.New("not found")
	// ErrTaken is returned when a name or address belongs to another node.
	ErrTaken = errors.New("taken by another node")
	// ErrClosed is returned by a store that has been closed.
	ErrClosed = errors.New("state is closed")

	errReadTx     = errors.New("change inside a read transaction")
	errSecretJSON = errors.New("secrets have no JSON form")
)

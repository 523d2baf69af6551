//go:build !linux

package journal

import "runtime"

// CurrentScope is supported on Linux alone.
func CurrentScope() (Scope, error) {
	return Scope{}, &UnsupportedError{Op: "name the network namespace", GOOS: runtime.GOOS}
}

// Open is supported on Linux alone: only there does the daemon change a host so far.
func Open(string) (*Journal, error) {
	return nil, &UnsupportedError{Op: "open the undo journal", GOOS: runtime.GOOS}
}

// OpenIn is supported on Linux alone.
func OpenIn(dir string, _ Scope) (*Journal, error) { return Open(dir) }

func (j *Journal) compactIfWorthLocked() error { return nil }

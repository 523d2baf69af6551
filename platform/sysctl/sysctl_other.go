//go:build !linux

package sysctl

import (
	"runtime"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

// Holds exists on Linux alone.
type Holds struct{}

// New is supported on Linux alone.
func New(Config) (*Holds, error) { return nil, unsupported("hold sysctls") }

// Hold is supported on Linux alone.
func (*Holds) Hold(Setting) error { return unsupported("hold a sysctl") }

// Release is supported on Linux alone.
func (*Holds) Release(string) ([]journal.Left, error) { return nil, unsupported("release a sysctl") }

// Keys returns nothing.
func (*Holds) Keys() []string { return nil }

// Undoers returns an empty registry.
func Undoers() journal.Registry { return journal.Registry{} }

// Read is supported on Linux alone.
func Read(string) (string, error) { return "", unsupported("read a sysctl") }

func unsupported(op string) error { return &journal.UnsupportedError{Op: op, GOOS: runtime.GOOS} }

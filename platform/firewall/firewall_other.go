//go:build !linux

package firewall

import (
	"runtime"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

// Manager exists on Linux alone.
type Manager struct{}

// New returns a Manager whose methods are unsupported.
func New(Config) *Manager { return &Manager{} }

// Set is supported on Linux alone.
func (*Manager) Set(Plan) error { return unsupported("set firewall rules") }

// SetForwarding is supported on Linux alone.
func (*Manager) SetForwarding(Forwarding) ([]Notice, error) {
	return nil, unsupported("set forwarding")
}

// Undoers returns an empty registry.
func Undoers() journal.Registry { return journal.Registry{} }

// ForeignDrops is supported on Linux alone.
func ForeignDrops(string) ([]ForeignDrop, error) { return nil, unsupported("list firewall rules") }

func unsupported(op string) error { return &journal.UnsupportedError{Op: op, GOOS: runtime.GOOS} }

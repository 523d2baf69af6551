//go:build !linux

package route

import (
	"net/netip"
	"runtime"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

// Manager exists on Linux alone.
type Manager struct{}

// New returns a Manager whose Set is unsupported.
func New(Config) *Manager { return &Manager{} }

// Set is supported on Linux alone.
func (*Manager) Set(Plan) ([]Notice, error) { return nil, unsupported("set routes") }

// Undoers returns an empty registry.
func Undoers() journal.Registry { return journal.Registry{} }

// Choose is supported on Linux alone.
func Choose(string, Selectors) (Selectors, error) {
	return Selectors{}, unsupported("choose a routing table")
}

// KnownPrefixes is supported on Linux alone.
func KnownPrefixes() ([]netip.Prefix, error) { return nil, unsupported("list known prefixes") }

// Connected is supported on Linux alone.
func Connected([]netip.Prefix, string) ([]Conflict, error) {
	return nil, unsupported("list connected networks")
}

// UsableAddresses is supported on Linux alone.
func UsableAddresses(...string) ([]HostAddress, error) { return nil, unsupported("list addresses") }

func unsupported(op string) error { return &journal.UnsupportedError{Op: op, GOOS: runtime.GOOS} }

//go:build !linux

package netmon

import (
	"context"
	"runtime"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

// Run is supported on Linux alone.
func (m *Monitor) Run(context.Context) error {
	return &journal.UnsupportedError{Op: "watch the network", GOOS: runtime.GOOS}
}

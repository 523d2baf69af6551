//go:build !linux

package netmon

import (
	"context"
	"runtime"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

func (m *Monitor) run(context.Context) error {
	return &journal.UnsupportedError{Op: "watch the network", GOOS: runtime.GOOS}
}

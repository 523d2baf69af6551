//go:build !linux

package udp

import (
	"fmt"
	"net/netip"
	"runtime"
)

func openTwin(Config, netip.AddrPort) (twin, error) {
	return nil, fmt.Errorf("not available on %s", runtime.GOOS)
}

// sentSegment has nothing to look for: no control message of these systems cuts a write into datagrams.
func sentSegment(_, b []byte) int { return len(b) }

func withoutSegment(control []byte) []byte { return control }

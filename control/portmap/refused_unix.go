//go:build unix

package portmap

import (
	"errors"
	"syscall"
)

// isRefused reports whether err is the echo of an ICMP port unreachable message.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

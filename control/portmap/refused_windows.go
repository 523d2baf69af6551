package portmap

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isRefused reports whether err is the echo of an ICMP port unreachable message.
func isRefused(err error) bool {
	return errors.Is(err, windows.WSAECONNRESET) || errors.Is(err, windows.WSAECONNREFUSED)
}

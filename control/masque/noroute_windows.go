package masque

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

// noWayOut reports whether a write failed for a reason of the host's network that may
// pass: no route, interface or source address, no room in a queue, a firewall.
func noWayOut(err error) bool {
	errno, _ := errors.AsType[syscall.Errno](err)
	switch errno {
	case windows.WSAENETUNREACH, windows.WSAEHOSTUNREACH, windows.WSAENETDOWN, windows.WSAEADDRNOTAVAIL,
		windows.WSAENOBUFS, windows.WSAEACCES:
		return true
	}
	return false
}

package udp

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// What Winsock says when a bind fails.
const (
	errInUse     = windows.WSAEADDRINUSE
	errForbidden = windows.WSAEACCES
	errNoAddress = windows.WSAEADDRNOTAVAIL
)

func isTooLong(errno syscall.Errno) bool   { return errno == windows.WSAEMSGSIZE }
func isNoBuffers(errno syscall.Errno) bool { return errno == windows.WSAENOBUFS }

func isNoWayOut(errno syscall.Errno) bool {
	switch errno {
	case windows.WSAENETUNREACH, windows.WSAEHOSTUNREACH, windows.WSAENETDOWN, windows.WSAEHOSTDOWN,
		windows.WSAEADDRNOTAVAIL, windows.WSAECONNREFUSED, windows.WSAECONNRESET, windows.WSAEACCES, windows.WSAEINVAL:
		return true
	}
	return false
}

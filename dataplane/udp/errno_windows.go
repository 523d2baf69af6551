package udp

import "golang.org/x/sys/windows"

// What Winsock says when a bind fails.
const (
	errInUse     = windows.WSAEADDRINUSE
	errForbidden = windows.WSAEACCES
	errNoAddress = windows.WSAEADDRNOTAVAIL
)

package udp

import "golang.org/x/sys/windows"

// What Winsock says when a bind fails.
const (
	errnoInUse      = windows.WSAEADDRINUSE
	errnoNotAllowed = windows.WSAEACCES
	errnoNoAddress  = windows.WSAEADDRNOTAVAIL
)

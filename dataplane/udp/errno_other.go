//go:build !windows

package udp

import "syscall"

// What the kernel says when a bind fails.
const (
	errnoInUse      = syscall.EADDRINUSE
	errnoNotAllowed = syscall.EACCES
	errnoNoAddress  = syscall.EADDRNOTAVAIL
)

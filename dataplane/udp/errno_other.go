//go:build !windows

package udp

import "syscall"

// What the kernel says when a bind fails.
const (
	errInUse     = syscall.EADDRINUSE
	errForbidden = syscall.EACCES
	errNoAddress = syscall.EADDRNOTAVAIL
)

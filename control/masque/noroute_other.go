//go:build !windows

package masque

import (
	"errors"
	"syscall"
)

// noWayOut reports whether a write failed for a reason of the host's network that may
// pass: no route, interface or source address, no room in a queue, a firewall. Linux
// says EINVAL where the source address of an IPv6 reply is gone and for a blackhole
// route, ENODEV where the interface of a reply is gone, EACCES for a prohibit route.
func noWayOut(err error) bool {
	errno, _ := errors.AsType[syscall.Errno](err)
	switch errno {
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL,
		syscall.ENOBUFS, syscall.EPERM, syscall.EACCES, syscall.EINVAL, syscall.ENODEV:
		return true
	}
	return false
}

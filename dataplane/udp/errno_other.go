//go:build !windows

package udp

import "syscall"

// What the kernel says when a bind fails.
const (
	errInUse     = syscall.EADDRINUSE
	errForbidden = syscall.EACCES
	errNoAddress = syscall.EADDRNOTAVAIL
)

func isTooLong(errno syscall.Errno) bool { return errno == syscall.EMSGSIZE }
func isNoBuffers(errno syscall.Errno) bool {
	return errno == syscall.ENOBUFS || errno == syscall.ENOMEM
}

// isNoWayOut knows what Linux says beside the obvious: EINVAL where the source address of an IPv6 reply is gone and for a
// blackhole route, ENODEV where the interface of a reply is gone, EACCES for a prohibit route, EPERM for a firewall.
func isNoWayOut(errno syscall.Errno) bool {
	switch errno {
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EADDRNOTAVAIL,
		syscall.ECONNREFUSED, syscall.EPERM, syscall.EACCES, syscall.EINVAL, syscall.ENODEV, syscall.ENXIO:
		return true
	}
	return false
}

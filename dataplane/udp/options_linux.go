package udp

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// setOptions makes the kernel tell addresses, ECN and time of what arrives, and set DF on what is sent without believing in
// path MTUs it has heard of (RFC 8899 section 4.1). Addresses come from peers, so broadcasts, which package net permits, are
// refused. ipv6 sockets carry IPv4 too.
func setOptions(fd int, ipv6 bool) error {
	err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 0),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTOS, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE))
	// Without it (Linux before 4.10) fragments are no hint, and the other signs of a narrow path remain.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVFRAGSIZE, 1)
	if ipv6 {
		err = errors.Join(err,
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE))
	}
	if err != nil {
		return fmt.Errorf("set options of UDP socket: %w", err)
	}
	return nil
}

// setBufferFD sizes a buffer, past the limit for users where the process may.
func setBufferFD(fd int, which buffer, bytes int) error {
	force, plain := unix.SO_RCVBUFFORCE, unix.SO_RCVBUF
	if which == sendBuffer {
		force, plain = unix.SO_SNDBUFFORCE, unix.SO_SNDBUF
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bytes); err == nil {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, bytes); err != nil {
		return fmt.Errorf("set buffer of UDP socket: %w", err)
	}
	return nil
}

// bufferFD returns what a buffer is.
func bufferFD(fd int, which buffer) int {
	option := unix.SO_RCVBUF
	if which == sendBuffer {
		option = unix.SO_SNDBUF
	}
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	if err != nil {
		return 0
	}
	return n
}

package udp

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

var (
	// ErrPortInUse means that another program has the UDP port.
	ErrPortInUse = errors.New("UDP port is in use by another program")
	// ErrPermission means that the process may not bind the port.
	ErrPermission = errors.New("not permitted to bind the UDP port")
	// ErrAddress means that the host does not have the address.
	ErrAddress = errors.New("this machine does not have the address")
	// ErrMark means that the process may not give its sockets a firewall mark.
	ErrMark = errors.New("not permitted to set the firewall mark of a socket")

	// ErrClosed means that the Conn has been closed. It is net.ErrClosed.
	ErrClosed = net.ErrClosed
	// ErrLost means that the kernel had no memory for the datagrams (ENOBUFS, ENOMEM) and that they are gone, as if
	// the network had lost them.
	ErrLost = errors.New("kernel out of buffers: datagram lost")
	// ErrFamily means that a socket of one IP version was given an address of the other.
	ErrFamily = errors.New("socket does not speak the IP version of the address")
	// ErrPathMTU means that QUIC does not get through to an address: its packets are too long for the path, and if there are
	// fragments they do not arrive, or their answers.
	ErrPathMTU = fmt.Errorf("path MTU below %d bytes, and no fragments pass", minQUICBytes+udpHeaderBytes+ipv4HeaderBytes)
	// ErrShortBuffer means that a Message has less room than MaxReceiveBytes.
	ErrShortBuffer = fmt.Errorf("message has room for less than %d bytes", MaxReceiveBytes)
)

// SizeError means that a datagram does not fit the first link of its path (EMSGSIZE): it would have to be fragmented,
// which is never done. It is the length of the UDP payload in bytes.
type SizeError int

func (e SizeError) Error() string {
	return fmt.Sprintf("datagram of %d bytes is too long for the path", int(e))
}

// NoWayOutError means that the host has no way to send to an address, or does not want to, for a reason that may pass: no
// route, no interface, a source address that is gone, a firewall, a port that refuses. The datagram is lost.
type NoWayOutError syscall.Errno

func (e NoWayOutError) Error() string { return "no way out: " + syscall.Errno(e).Error() }

// Unwrap returns the kernel's word, a syscall.Errno.
func (e NoWayOutError) Unwrap() error { return syscall.Errno(e) }

// sendError gives a failed send its answer and counts it. bytes is the length of a datagram, datagrams how many are lost.
func (s *counters) sendError(err error, bytes, datagrams int) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	switch {
	case !ok:
		return err
	case isTooLong(errno):
		s.tooLong.Add(1)
		return SizeError(bytes)
	case isNoBuffers(errno):
		s.lost.Add(uint64(datagrams))
		return ErrLost
	case isNoWayOut(errno):
		s.noWayOut.Add(1)
		return NoWayOutError(errno)
	}
	return fmt.Errorf("send UDP: %w", err)
}

var (
	errNoWriteDeadline = fmt.Errorf("write deadline of a shared UDP socket: %w", errors.ErrUnsupported)
	errNoRawIO         = fmt.Errorf("reading and writing the descriptor of a shared UDP socket: %w", errors.ErrUnsupported)
)

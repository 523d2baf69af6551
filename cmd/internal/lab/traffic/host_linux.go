package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Host is where an end point opens its sockets. *lab.Namespace is one.
type Host interface {
	// Do runs a function where sockets that it opens belong to the host.
	Do(func() error) error
}

// Here is the host that a program runs on anyway.
type Here struct{}

// Do runs f.
func (Here) Do(f func() error) error { return f() }

// defaultCongestion is used on TCP connections unless told otherwise, so that results of different
// kernels compare.
const defaultCongestion = "cubic"

// dial connects from a host to an address; TCP connections take a congestion control, or the system's
// if that is "".
func dial(
	ctx context.Context, host Host, network string, to netip.AddrPort, congestion string,
) (net.Conn, error) {
	var conn net.Conn
	err := host.Do(func() error {
		dialer := net.Dialer{}
		if network == "tcp" {
			dialer.SetMultipathTCP(false)
		}
		if congestion != "" {
			dialer.Control = control(func(fd int) error { return setCongestion(fd, congestion) })
		}
		c, err := dialer.DialContext(ctx, network, to.String())
		conn = c
		return err
	})
	return conn, err
}

// as gives a socket of package net the type that its network is documented to have.
func as[T any](socket any, err error) (T, error) {
	typed, ok := socket.(T)
	if err == nil && !ok {
		err = fmt.Errorf("the socket is a %T", socket)
	}
	return typed, err
}

// control turns a function of a descriptor into the form that package net takes.
func control(f func(fd int) error) func(network, address string, raw syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error { return onDescriptor(raw, f) }
}

func onDescriptor(raw syscall.RawConn, f func(fd int) error) error {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

func setCongestion(fd int, name string) error {
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name); err != nil {
		return fmt.Errorf("set congestion control %q: %w", name, err)
	}
	return nil
}

// socketBufferBytes is what paced packets may wait in while their reader is off the processor.
const socketBufferBytes = 16 << 20

// enlargeBuffers asks for large socket buffers, beyond the system's limit where this process may.
func enlargeBuffers(fd int) error {
	for _, option := range []struct{ force, plain int }{
		{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF},
		{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF},
	} {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option.force, socketBufferBytes)
		if errors.Is(err, unix.EPERM) {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option.plain, socketBufferBytes)
		}
		if err != nil {
			return fmt.Errorf("enlarge the socket buffers: %w", err)
		}
	}
	return nil
}

// transient tells the errors that a UDP socket reports about the path or the peer rather than about the
// call. A packet that meets one is lost; the next may pass.
func transient(err error) bool {
	for _, e := range []unix.Errno{
		unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ENETDOWN, unix.EHOSTDOWN,
		unix.EPERM, unix.ENOBUFS,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

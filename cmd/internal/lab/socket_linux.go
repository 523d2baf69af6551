package lab

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// congestionControl is what the lab's TCP sockets use, so that results of different kernels compare.
const congestionControl = "cubic"

// Listen opens a TCP listener inside the namespace, at an IP address and port such as "192.0.2.1:0".
// Accepted connections use cubic.
func (n *Namespace) Listen(address string) (*net.TCPListener, error) {
	var listener *net.TCPListener
	err := n.Do(func() error {
		config := net.ListenConfig{Control: useCubic}
		config.SetMultipathTCP(false)
		l, err := config.Listen(context.Background(), "tcp", address)
		if err != nil {
			return err
		}
		var ok bool
		if listener, ok = l.(*net.TCPListener); !ok {
			return fmt.Errorf("a TCP listener is a %T", l)
		}
		return nil
	})
	return listener, err
}

// ListenUDP opens an unconnected UDP socket inside the namespace, at an IP address and port such as
// "[::]:443".
func (n *Namespace) ListenUDP(address string) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := n.Do(func() error {
		local, err := net.ResolveUDPAddr("udp", address)
		if err != nil {
			return err
		}
		conn, err = net.ListenUDP("udp", local)
		return err
	})
	return conn, err
}

// Dial connects from inside the namespace to an IP address and port. Networks are those of
// [net.Dialer]; names are not resolved inside the namespace. TCP connections use cubic. It has the form
// of http.Transport's DialContext.
func (n *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := n.Do(func() error {
		dialer := net.Dialer{Control: useCubic}
		dialer.SetMultipathTCP(false)
		c, err := dialer.DialContext(ctx, network, address)
		conn = c
		return err
	})
	return conn, err
}

// useCubic sets the congestion control of a TCP socket that is being made; other sockets it leaves
// alone.
func useCubic(network, _ string, raw syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestionControl)
	})
	if err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("set congestion control %s: %w", congestionControl, failed)
	}
	return nil
}

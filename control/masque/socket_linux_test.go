package masque

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace with two sockets, which lives as long as they do.
type namespace struct {
	a, b *net.UDPConn
	host *netlink.Handle
	lo   netlink.Link
}

// newNamespace makes a namespace whose loopback has the given MTU and, beside its own
// addresses, 10.9.0.1 and fd09::1. Sockets are bound to the given addresses.
func newNamespace(t *testing.T, mtu int, a, b string) *namespace {
	t.Helper()
	n := &namespace{}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		result <- n.open(mtu, a, b)
	}()
	err := <-result
	t.Cleanup(func() {
		for _, c := range []*net.UDPConn{n.a, n.b} {
			if c != nil {
				_ = c.Close()
			}
		}
		if n.host != nil {
			n.host.Close()
		}
	})
	if errors.Is(err, unix.EPERM) && unix.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// open makes the namespace that of this thread.
func (n *namespace) open(mtu int, a, b string) (err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("new network namespace: %w", err)
	}
	if n.host, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	if n.lo, err = n.host.LinkByName("lo"); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	err = errors.Join(n.host.LinkSetMTU(n.lo, mtu), n.host.LinkSetUp(n.lo), n.routes(n.host.AddrAdd))
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if n.a, err = bind(a); err != nil {
		return err
	}
	n.b, err = bind(b)
	return err
}

// routes adds or deletes the addresses and with them the only routes to them.
func (n *namespace) routes(change func(netlink.Link, *netlink.Addr) error) error {
	var errs []error
	for _, prefix := range []string{"10.9.0.1/32", "fd09::1/128"} {
		addr, err := netlink.ParseAddr(prefix)
		if err == nil {
			err = change(n.lo, addr)
		}
		if prefix[0] == 'f' && !hasIPv6() {
			err = nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// hasIPv6 reports whether this kernel has IPv6 at all.
func hasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return !errors.Is(err, os.ErrNotExist)
}

func bind(address string) (*net.UDPConn, error) {
	return net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(address)})
}

// What the package comment says about an interface that is too small: a dial with an
// explicit size fails at once with EMSGSIZE, and the fallback connects.
func TestOwnLinkTooSmall(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	n := newNamespace(t, 1280, "127.0.0.1", "127.0.0.1")
	client, server := n.a, n.b
	sizes := NewInitialSizes()
	listening := &quic.Transport{Conn: NewSocket(newKernelSocket(server), sizes), ConnectionIDLength: 8}
	listener, err := listening.Listen(serverTLS, sizes.QUICConfig())
	if err != nil {
		t.Fatal(err)
	}
	dialing := &quic.Transport{Conn: client, ConnectionIDLength: 8}
	t.Cleanup(func() { _, _, _ = dialing.Close(), listener.Close(), listening.Close() })
	dial := func(ctx context.Context, size uint16) (*quic.Conn, error) {
		return dialing.Dial(ctx, server.LocalAddr(), clientTLS, QUICConfig(size))
	}
	_, err = dial(t.Context(), PreferredPacketSize)
	var local *quic.TransportError
	if !errors.As(err, &local) || local.Remote || local.ErrorCode != quic.InternalError ||
		!strings.Contains(err.Error(), syscall.EMSGSIZE.Error()) {
		t.Errorf("dial with %d: %v", PreferredPacketSize, err)
	}
	conn, size, err := DialPacketSizes(t.Context(), dial)
	if err != nil || size != SmallestPacketSize {
		t.Fatalf("fallback: %d, %v", size, err)
	}
	_ = conn.CloseWithError(0, "")
}

// A session outlives a moment in which neither end has a way to the other. Replies of
// a server on all addresses name their source, which changes what the kernel says.
func TestSessionOutlivesLossOfRoutes(t *testing.T) {
	for _, c := range []struct{ client, server, to string }{
		{"127.0.0.1", "10.9.0.1", "10.9.0.1"},
		{"0.0.0.0", "0.0.0.0", "10.9.0.1"},
		{"::", "::", "10.9.0.1"},
		{"::", "::", "fd09::1"},
	} {
		t.Run(c.server+" at "+c.to, func(t *testing.T) {
			if strings.Contains(c.server, ":") && !hasIPv6() {
				t.Skip("this kernel has no IPv6")
			}
			n := newNamespace(t, 65536, c.client, c.server)
			n.outlive(t, &net.UDPAddr{IP: net.ParseIP(c.to), Port: n.b.LocalAddr().(*net.UDPAddr).Port})
		})
	}
}

func (n *namespace) outlive(t *testing.T, to *net.UDPAddr) {
	t.Helper()
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	clientSocket, serverSocket := NewSocket(newKernelSocket(n.a), NewInitialSizes()), NewSocket(newKernelSocket(n.b), NewInitialSizes())
	g := &gateway{}
	serveSocket(t, NewServer(newGateway(t, HandlerConfig[string]{}, g)), serverTLS, serverSocket)
	dialing := &quic.Transport{Conn: clientSocket, ConnectionIDLength: 8}
	t.Cleanup(func() { _ = dialing.Close() })
	conn, err := dialing.Dial(t.Context(), to, clientTLS, QUICConfig(PreferredPacketSize))
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := Dial(t.Context(), conn, Request{Authority: "g", Header: bearer})
	if err != nil {
		t.Fatal(err)
	}
	client, server := runClient(t, s), <-g.sessions
	if _, err := client.Ping(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := n.routes(n.host.AddrDel); err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		*Session
		socket *Socket
	}{{client.Session, clientSocket}, {server.Session, serverSocket}} {
		for end.socket.WritesLost() == 0 {
			if err := end.SendPacket(packetOf(4, 100)); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err = dialing.Dial(t.Context(), to, clientTLS, QUICConfig(PreferredPacketSize))
	var local *quic.TransportError
	if !errors.As(err, &local) || local.Remote || local.ErrorCode != quic.InternalError {
		t.Errorf("a dial without a route: %v", err)
	}
	if err := n.routes(n.host.AddrAdd); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*running{client, server} {
		if _, err := r.Ping(t.Context(), MaxPingPadding); err != nil {
			t.Fatal(err)
		}
	}
}

// What is no loss stays an error: too long a packet, and any failure of a handshake.
func TestSocketErrors(t *testing.T) {
	n := newNamespace(t, 1280, "127.0.0.1", "127.0.0.1")
	to := &net.UDPAddr{IP: net.IPv4(10, 9, 0, 1), Port: 9}
	s := NewSocket(newKernelSocket(n.a), NewInitialSizes())
	short, long := make([]byte, 100), make([]byte, 100)
	short[0], long[0] = 0x40, 0xc0
	writes := map[string]func(b []byte) (int, error){
		"WriteTo":     func(b []byte) (int, error) { return s.WriteTo(b, to) },
		"WriteMsgUDP": func(b []byte) (int, error) { n, _, err := s.WriteMsgUDP(b, nil, to); return n, err },
	}
	for name, write := range writes {
		if _, err := write(make([]byte, 1<<16)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("%s: too long: %v", name, err)
		}
		if n, err := write(long); n != len(long) || err != nil {
			t.Errorf("%s: with a route: %d, %v", name, n, err)
		}
	}
	if n := s.WritesLost(); n != 0 {
		t.Errorf("%d writes lost with a route", n)
	}
	if err := n.routes(n.host.AddrDel); err != nil {
		t.Fatal(err)
	}
	for name, write := range writes {
		if n, err := write(short); n != len(short) || err != nil {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		for _, b := range [][]byte{long, nil} {
			if _, err := write(b); !errors.Is(err, syscall.ENETUNREACH) {
				t.Errorf("%s: handshake packet of %d: %v", name, len(b), err)
			}
		}
	}
	if n := s.WritesLost(); n != 2 {
		t.Errorf("%d writes lost", n)
	}
	if err := n.a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.WriteTo(short, to); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

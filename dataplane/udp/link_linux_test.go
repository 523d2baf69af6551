package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host is a network namespace with a thread in it.
type host struct {
	t      testing.TB
	work   chan func()
	handle *netlink.Handle
	veth   netlink.Link
	fd     int
}

// newHost makes a namespace.
func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{t: t, work: make(chan func()), fd: -1}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for f := range h.work {
			f()
		}
	}()
	t.Cleanup(func() { close(h.work); <-ended })
	h.do(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if h.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		h.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	t.Cleanup(func() {
		h.handle.Close()
		_ = unix.Close(h.fd)
	})
	return h
}

// do runs f in the namespace.
func (h *host) do(f func() error) {
	h.t.Helper()
	done := make(chan error)
	h.work <- func() { done <- f() }
	if err := <-done; errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		h.t.Skip("a network namespace needs root")
	} else if err != nil {
		h.t.Fatal(err)
	}
}

// open opens a Conn in the namespace.
func (h *host) open(cfg Config) *Conn {
	h.t.Helper()
	return h.openWith(cfg, linux{})
}

func (h *host) openWith(cfg Config, k kernel) *Conn {
	h.t.Helper()
	var c *Conn
	h.do(func() error {
		stats := &counters{}
		b, err := openWith(h.t.Context(), cfg, stats, k)
		if err != nil {
			return err
		}
		c, err = newSocketConn(b, cfg, stats)
		return err
	})
	h.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			h.t.Errorf("close: %v", err)
		}
	})
	return c
}

// Addresses of the two hosts of a link. The second has two of each family.
var (
	left4, left6   = netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("fd07::1")
	right4, right6 = netip.MustParseAddr("10.7.0.2"), netip.MustParseAddr("fd07::2")
	other4, other6 = netip.MustParseAddr("10.7.0.3"), netip.MustParseAddr("fd07::3")
)

// newLink makes two hosts with a veth pair between them.
func newLink(t testing.TB, mtu int) (left, right *host) {
	t.Helper()
	left, right = newHost(t), newHost(t)
	left.do(func() error {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0", MTU: mtu}, PeerName: "v1"}
		if err := left.handle.LinkAdd(pair); err != nil {
			return err
		}
		peer, err := left.handle.LinkByName("v1")
		if err != nil {
			return err
		}
		return left.handle.LinkSetNsFd(peer, right.fd)
	})
	left.up("v0", mtu, left4, left6)
	right.up("v1", mtu, right4, right6, other4, other6)
	return left, right
}

// up configures one end of a link.
func (h *host) up(name string, mtu int, addresses ...netip.Addr) {
	h.t.Helper()
	h.do(func() (err error) {
		if h.veth, err = h.handle.LinkByName(name); err != nil {
			return err
		}
		if err := errors.Join(h.handle.LinkSetMTU(h.veth, mtu), h.handle.LinkSetUp(h.veth)); err != nil {
			return err
		}
		for _, a := range addresses {
			bits := 24
			if a.Is6() {
				bits = 64
			}
			addr, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", a, bits))
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := h.handle.AddrAdd(h.veth, addr); err != nil {
				return err
			}
		}
		return nil
	})
}

// at is an address with the port of a Conn.
func at(c *Conn, a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, c.LocalAddr().Port()) }

// to makes a Destination with the source left to the kernel.
func to(t testing.TB, c *Conn, a netip.AddrPort) *Destination {
	t.Helper()
	d, err := c.NewDestination(a, netip.Addr{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// messages are n with buffers.
func messages(n int) []Message {
	ms := make([]Message, n)
	for i := range ms {
		ms[i].Data = make([]byte, MaxReceiveBytes)
	}
	return ms
}

// arrive waits until datagrams pass from one Conn to an address of another: a link needs a moment to be up.
func arrive(t testing.TB, from *Conn, d *Destination, into *Conn) {
	t.Helper()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			var noWay NoWayOutError
			if err := from.Send([]byte("?"), 0, 0, d); err != nil && !errors.As(err, &noWay) {
				t.Errorf("send: %v", err)
				return
			}
			select {
			case <-stop:
				return
			default:
				runtime.Gosched()
			}
		}
	}()
	ms := messages(1)
	if _, err := into.Receive(ms); err != nil {
		t.Errorf("receive: %v", err)
	}
	close(stop)
	<-done
	if err := from.Send([]byte("end"), 0, 0, d); err != nil {
		t.Errorf("send: %v", err)
	}
	for string(ms[0].Data[max(0, len(ms[0].Data)-3):]) != "end" {
		if _, err := into.Receive(ms); err != nil {
			t.Fatalf("receive: %v", err)
		}
	}
}

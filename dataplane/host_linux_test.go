package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/tun"
)

// TestHostBelievesOurErrors: what the dataplane tells its own host reaches the socket that sent the packet, through a
// real device. Linux drops errors that it takes for forged without a word.
func TestHostBelievesOurErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		to    netip.Addr
		bytes int
		want  unix.Errno
	}{
		{"no route", netip.MustParseAddr("100.64.9.9"), 10, unix.ENETUNREACH},
		{"no route, 6", netip.MustParseAddr("fd00::9:9"), 10, unix.ENETUNREACH},
		{"no session", b4, 10, unix.EHOSTUNREACH},
		{"no session, 6", b6, 10, unix.EHOSTUNREACH},
		{"too big", a4, 1330, unix.EMSGSIZE},
		{"too big, 6", a6, 1330, unix.EMSGSIZE},
	} {
		t.Run(c.name, func(t *testing.T) {
			inNetwork(t, func(ctx context.Context) error {
				nic, err := upDevice()
				if err != nil {
					return err
				}
				e, stop := run(t, nic, gatewaySnapshot(idA, idB))
				ctx, cancel := context.WithCancel(ctx)
				attached := make(chan error, 1)
				narrow := half{func([]byte) error { return &TooBigError{MaxPacketBytes: 1300} }, untilDone}
				go func() { attached <- e.Attach(ctx, idA, narrow) }()
				defer func() {
					cancel()
					<-attached
				}()
				for !hasCarrier(e, idA) {
					runtime.Gosched()
				}
				err = sendAndHear(c.to, c.bytes)
				if !errors.Is(err, c.want) {
					t.Errorf("the socket heard %v, want %v; dropped %v", err, c.want, e.Stats().Drops)
				}
				return stop()
			})
		})
	}
}

// upDevice makes a device with the gateway's addresses.
func upDevice() (tun.Device, error) {
	nic, err := tun.Config{Name: "at0", MTU: 1380}.Create()
	if err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName("at0")
	if err != nil {
		return nil, errors.Join(err, nic.Close())
	}
	for _, p := range []string{gw4.String() + "/16", gw6.String() + "/48"} {
		address, err := netlink.ParseAddr(p)
		if err != nil {
			return nil, errors.Join(err, nic.Close())
		}
		address.Flags = unix.IFA_F_NODAD
		if address.IP.To4() != nil {
			address.Flags = 0
		}
		if err := netlink.AddrAdd(link, address); err != nil {
			return nil, errors.Join(fmt.Errorf("add %s: %w", p, err), nic.Close())
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, errors.Join(err, nic.Close())
	}
	return nic, untilLocal(gw6)
}

// untilLocal waits until the host takes packets to an address: IPv6 adds the route for it in the background.
func untilLocal(a netip.Addr) error {
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		routes, err := netlink.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		runtime.Gosched()
	}
	return fmt.Errorf("%v did not become an address of the host", a)
}

// sendAndHear sends a datagram and returns the error that comes back for it.
func sendAndHear(to netip.Addr, payloadBytes int) error {
	s, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 7)))
	if err != nil {
		return err
	}
	defer s.Close()
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) { // hear errors that are not fatal too, and let nobody cut the datagram
		if to.Is4() {
			optErr = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO))
			return
		}
		optErr = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVERR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO))
	})
	if err := errors.Join(err, optErr); err != nil {
		return err
	}
	if _, err := s.Write(make([]byte, payloadBytes)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := s.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	_, err = s.Read(make([]byte, 10))
	return err
}

// errRights says that the process may not do what the test needs, which only root may everywhere.
var errRights = errors.New("not permitted to make a namespace")

// inNetwork runs f on a thread with an empty network of its own, which ends with it.
func inNetwork(t *testing.T, f func(ctx context.Context) error) {
	t.Helper()
	ctx, done := t.Context(), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
			done <- errRights
		} else if err != nil {
			done <- fmt.Errorf("unshare: %w", err)
		} else {
			done <- f(ctx)
		}
	}()
	switch err := <-done; {
	case errors.Is(err, errRights):
		t.Skipf("%v: run as root", err)
	case err != nil:
		t.Fatal(err)
	}
}

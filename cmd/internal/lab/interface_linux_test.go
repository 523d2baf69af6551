package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/labtest"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

// check fails the test at the first error of a sequence of steps.
func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// ping fails the test unless an address answers.
func ping(t *testing.T, from *lab.Namespace, to string) {
	t.Helper()
	result, err := traffic.Ping{Count: 3}.Run(t.Context(), from, netip.MustParseAddr(to))
	if err != nil || result.Received == 0 {
		t.Fatalf("ping from %s to %s: %+v, %v", from.Name(), to, result, err)
	}
}

func TestVethJoinsNamespacesThroughARouter(t *testing.T) {
	laptop, router := labtest.Namespace(t, "laptop"), labtest.Namespace(t, "router")
	server := labtest.Namespace(t, "server")
	labtest.Veth(t, laptop.Interface("eth0"), router.Interface("lan"), 1500)
	labtest.Veth(t, router.Interface("wan"), server.Interface("eth0"), 1400)
	check(t,
		laptop.Interface("eth0").AddAddress("192.0.2.2/24", "2001:db8:1::2/64"),
		router.Interface("lan").AddAddress("192.0.2.1/24", "2001:db8:1::1/64"),
		router.Interface("wan").AddAddress("198.51.100.1/24", "2001:db8:2::1/64"),
		server.Interface("eth0").AddAddress("198.51.100.2/24", "2001:db8:2::2/64"),
		laptop.AddRoute("0.0.0.0/0", "192.0.2.1"), laptop.AddRoute("::/0", "2001:db8:1::1"),
		server.AddRoute("192.0.2.0/24", "198.51.100.1"), server.AddRoute("2001:db8:1::/64", "2001:db8:2::1"),
		router.Forward(),
	)
	ping(t, laptop, "198.51.100.2")
	ping(t, laptop, "2001:db8:2::2")

	for _, to := range []string{"198.51.100.2", "2001:db8:2::2"} {
		big, err := traffic.Ping{Bytes: 1440, DontFragment: true}.Run(t.Context(), laptop, netip.MustParseAddr(to))
		if err != nil || len(big.Errors) != 1 || big.Errors[0].MTU != 1400 {
			t.Errorf("a packet too long for the second link to %s met %v, %v", to, big.Errors, err)
		}
	}

	check(t, laptop.RemoveRoute("0.0.0.0/0", "192.0.2.1"))
	lost, err := traffic.Ping{}.Run(t.Context(), laptop, netip.MustParseAddr("198.51.100.2"))
	if err != nil || lost.Lost() != 1 {
		t.Errorf("ping without a route: %+v, %v", lost, err)
	}
}

func TestChangeAddressKeepsRoutes(t *testing.T) {
	laptop, gateway := labtest.Namespace(t, "laptop"), labtest.Namespace(t, "gateway")
	wifi, uplink := laptop.Interface("wifi0"), gateway.Interface("eth0")
	labtest.Veth(t, wifi, uplink, 1500)
	check(t,
		uplink.AddAddress("192.0.2.1/24", "198.51.100.1/32", "2001:db8::1/64", "2001:db8:f::1/128"),
		wifi.AddAddress("192.0.2.2/24", "2001:db8::2/64"),
		laptop.AddRoute("0.0.0.0/0", "192.0.2.1"), laptop.AddRoute("::/0", "2001:db8::1"),
	)
	check(t, wifi.ChangeAddress("192.0.2.2/24", "192.0.2.77/24"),
		wifi.ChangeAddress("2001:db8::2/64", "2001:db8::77/64"))
	got, err := wifi.Addresses()
	check(t, err)
	want := []netip.Prefix{netip.MustParsePrefix("192.0.2.77/24"), netip.MustParsePrefix("2001:db8::77/64")}
	if !slices.Equal(got, want) {
		t.Errorf("addresses %v, want %v", got, want)
	}
	ping(t, laptop, "198.51.100.1") // over the default routes
	ping(t, laptop, "2001:db8:f::1")
}

func TestInterfaceErrorsNameThePlace(t *testing.T) {
	n := labtest.Namespace(t, "box")
	nowhere := n.Interface("none0")
	var missing netlink.LinkNotFoundError
	for _, err := range []error{
		nowhere.SetUp(), nowhere.AddAddress("192.0.2.1/24"), nowhere.SetOffloads(lab.Offloads{}),
	} {
		if !errors.As(err, &missing) {
			t.Errorf("missing interface: %v", err)
		}
	}
	if err := n.Interface("lo").AddAddress("192.0.2.300/24"); err == nil {
		t.Error("an address that is none was taken")
	}
	if err := n.AddRoute("0.0.0.0/0", "192.0.2.1"); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("route via an unreachable hop: %v", err)
	}
}

func TestOffloads(t *testing.T) {
	a, b := labtest.Namespace(t, "a"), labtest.Namespace(t, "b")
	place, far := a.Interface("eth0"), b.Interface("eth0")
	labtest.Veth(t, place, far, 1500)
	initial, err := place.Offloads()
	check(t, err)
	if initial == (lab.Offloads{}) {
		t.Fatalf("a new veth has no offloads: %+v", initial)
	}
	for _, want := range []lab.Offloads{
		{}, {TxChecksum: true}, {TxChecksum: true, TSO: true, GSO: true, USO: true, GRO: true},
	} {
		check(t, place.SetOffloads(want))
		got, err := place.Offloads()
		check(t, err)
		if got != want {
			t.Errorf("offloads %+v, want %+v", got, want)
		}
	}
	// Without offloads every frame that arrives is one packet of the wire.
	check(t, place.SetOffloads(lab.Offloads{}), far.SetOffloads(lab.Offloads{}),
		place.AddAddress("192.0.2.1/24"), far.AddAddress("192.0.2.2/24"))
	if longest := longestFrame(t, a, b); longest > 1500+14 {
		t.Errorf("a frame of %d bytes crossed a link without offloads", longest)
	}
	check(t, place.SetOffloads(initial), far.SetOffloads(initial))
	if longest := longestFrame(t, a, b); longest <= 1500+14 {
		t.Errorf("no super-packet crossed a link with offloads; the longest frame has %d bytes", longest)
	}
}

// longestFrame sends 1 MiB by TCP from a to 192.0.2.2 in b and returns the length of the longest frame
// that b saw.
func longestFrame(t *testing.T, a, b *lab.Namespace) int {
	t.Helper()
	listener, err := b.Listen("192.0.2.2:0")
	check(t, err)
	tap := -1
	check(t, b.Do(func() error {
		const everything = 0x0300 // ETH_P_ALL in network byte order
		tap, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, everything)
		return err
	}))
	check(t, unix.SetsockoptInt(tap, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20))
	sent := make(chan error, 1)
	go func() {
		conn, err := a.Dial(t.Context(), "tcp", listener.Addr().String())
		if err == nil {
			_, err = conn.Write(make([]byte, 1<<20))
			err = errors.Join(err, conn.Close())
		}
		sent <- err
	}()
	conn, err := listener.Accept()
	check(t, err)
	received, err := io.Copy(io.Discard, conn)
	check(t, err, <-sent, conn.Close(), listener.Close())
	if received != 1<<20 {
		t.Fatalf("%d bytes arrived", received)
	}
	longest, buffer := 0, make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(tap, buffer, unix.MSG_TRUNC)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		check(t, err)
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_HOST {
			longest = max(longest, n)
		}
	}
	check(t, unix.Close(tap))
	return longest
}

func ExampleVeth() {
	demo := func() error {
		laptop, err := lab.NewNamespace("laptop")
		if err != nil {
			return err
		}
		defer laptop.Close()
		server, err := lab.NewNamespace("server")
		if err != nil {
			return err
		}
		defer server.Close()

		left, right := laptop.Interface("eth0"), server.Interface("eth0")
		if err := lab.Veth(left, right, 1500); err != nil {
			return err
		}
		if err := errors.Join(left.AddAddress("192.0.2.1/24"), right.AddAddress("192.0.2.2/24")); err != nil {
			return err
		}
		listener, err := server.Listen("192.0.2.2:80")
		if err != nil {
			return err
		}
		defer listener.Close()
		conn, err := laptop.Dial(context.Background(), "tcp", "192.0.2.2:80")
		if err != nil {
			return err
		}
		fmt.Println("connected to", conn.RemoteAddr())
		return conn.Close()
	}
	if err := demo(); err != nil {
		fmt.Println(err)
	}
	// It needs privileges, so it is compiled and not run.
}

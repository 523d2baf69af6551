package udp

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func listen(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	var a netip.AddrPort
	if address != "" {
		a = netip.MustParseAddrPort(address)
	}
	conn, err := Listen(t.Context(), Config{Address: a})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// port is the address of the host with the socket's port.
func port(conn *net.UDPConn, host string) netip.AddrPort {
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(netip.MustParseAddr(host), local.Port())
}

// send sends one datagram to conn at the host's address and returns the source that conn saw.
func send(t *testing.T, conn *net.UDPConn, host string) netip.AddrPort {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(port(conn, host)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil {
		t.Fatalf("nothing came to %s: %v", host, err)
	}
	return from
}

// needIPv6 skips on hosts that have switched IPv6 off.
func needIPv6(t *testing.T) {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(net.IPv6loopback) {
			return
		}
	}
	t.Skip("this host has no ::1")
}

func TestWildcardHasBothFamilies(t *testing.T) {
	needIPv6(t)
	conn := listen(t, "")
	for _, host := range []string{"127.0.0.1", "::1"} {
		if from := send(t, conn, host); from.Addr().Unmap() != netip.MustParseAddr(host) {
			t.Errorf("from %s came %v", host, from)
		}
	}
}

func TestOneFamily(t *testing.T) {
	needIPv6(t)
	for address, c := range map[string]struct{ host, other string }{
		"0.0.0.0:0":            {"127.0.0.1", "::1"},
		"127.0.0.1:0":          {"127.0.0.1", "::1"},
		"[::ffff:127.0.0.1]:0": {"127.0.0.1", "::1"},
		"[::]:0":               {"::1", "127.0.0.1"},
		"[::1]:0":              {"::1", "127.0.0.1"},
	} {
		conn := listen(t, address)
		send(t, conn, c.host)
		// The port of the other family is free, as nothing but another socket on it can show.
		other, err := Listen(t.Context(), Config{Address: port(conn, c.other)})
		if err != nil {
			t.Errorf("%s: the other family: %v", address, err)
			continue
		}
		other.Close()
	}
}

func TestPortInUse(t *testing.T) {
	first := listen(t, "127.0.0.1:0")
	wildcard := netip.AddrPortFrom(netip.Addr{}, port(first, "127.0.0.1").Port())
	for _, address := range []netip.AddrPort{port(first, "127.0.0.1"), wildcard} {
		conn, err := Listen(t.Context(), Config{Address: address})
		if !errors.Is(err, ErrPortInUse) {
			t.Errorf("%v: got %v", address, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

func TestAddressNotOurs(t *testing.T) {
	for _, address := range []string{"192.0.2.1:0", "[2001:db8::1]:0"} { // RFC 5737, RFC 3849: nobody's
		conn, err := Listen(t.Context(), Config{Address: netip.MustParseAddrPort(address)})
		if !errors.Is(err, ErrAddress) {
			t.Errorf("%s: got %v", address, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

func TestUnknownErrorsAreKept(t *testing.T) {
	strange := errors.New("strange")
	if err := bindError(strange); !errors.Is(err, strange) {
		t.Errorf("got %v", err)
	}
}

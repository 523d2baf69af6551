package e2e

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/labtest"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
	"github.com/aethertunnel/aethertunnel/control/api"
)

// Addresses of the usual test network.
const (
	gatewayUnderlay4, laptopUnderlay4 = "192.0.2.1", "192.0.2.2"
	gatewayUnderlay6, laptopUnderlay6 = "2001:db8::1", "2001:db8::2"
	testNetwork                       = "10.77.0.0/24,fd77::/64"
)

// twoMachines joins a gateway's and a member's machine by a cable.
func twoMachines(t *testing.T) (gateway, laptop *machine) {
	t.Helper()
	gateway, laptop = newMachine(t, "gateway"), newMachine(t, "laptop")
	cable(gateway, "eth0", laptop, "eth0", []string{gatewayUnderlay4 + "/24", gatewayUnderlay6 + "/64"},
		[]string{laptopUnderlay4 + "/24", laptopUnderlay6 + "/64"})
	return gateway, laptop
}

// otherMachine joins one more machine to the gateway's.
func otherMachine(gateway *machine) *machine {
	gateway.t.Helper()
	other := newMachine(gateway.t, "other")
	cable(gateway, "eth1", other, "eth0", []string{"198.51.100.1/24", "2001:db8:5::1/64"},
		[]string{"198.51.100.2/24", "2001:db8:5::2/64"})
	return other
}

// gatewayUp starts a gateway of the usual test network and waits until it listens.
func gatewayUp(m *machine, args ...string) *daemon {
	m.t.Helper()
	return networkUp(m, "gateway", testNetwork, args...)
}

// networkUp starts a gateway with a state and a network of its own and waits until it listens.
func networkUp(m *machine, state, network string, args ...string) *daemon {
	m.t.Helper()
	args = append([]string{"--network", network, "--name", "hub", "--port-mapping", "off"}, args...)
	return m.up(state, args...).listening()
}

// tunnel makes the usual pair of daemons, connected.
func tunnel(t *testing.T) (gateway, member *daemon) {
	t.Helper()
	g, l := twoMachines(t)
	gateway = gatewayUp(g)
	return gateway, l.up("laptop", "--name", "laptop", gateway.invite()).connected()
}

func TestTwoCommandsMakeATunnel(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	printer := newMachine(t, "printer")
	cable(g, "lan0", printer, "eth0", []string{"192.168.7.1/24", "2001:db8:7::1/64"},
		[]string{"192.168.7.2/24", "2001:db8:7::2/64"})
	// The gateway's way into the LAN is narrower than the tunnel, which the printer does not know.
	if err := g.Interface("lan0").SetMTU(1300); err != nil {
		t.Fatal(err)
	}
	gateway := gatewayUp(g, "--advertise-routes", "192.168.7.0/24,2001:db8:7::/64")
	member := l.up("laptop", "--name", "laptop", gateway.invite()).connected()

	t.Run("addresses and routes", func(t *testing.T) { checkMemberHost(t, member) })
	t.Run("status", func(t *testing.T) { checkStatus(t, gateway, member) })
	t.Run("ping", func(t *testing.T) {
		l.reaches(gateway.address4(), gateway.address6())
		g.reaches(member.address4(), member.address6())
	})
	t.Run("TCP", func(t *testing.T) {
		for _, a := range []netip.Addr{gateway.address4(), gateway.address6()} {
			carriesTCP(t, l, g, a)
		}
	})
	t.Run("LAN behind the gateway", func(t *testing.T) { checkLAN(t, l, printer) })
}

// checkMemberHost checks what a member has set up on its machine.
func checkMemberHost(t *testing.T, member *daemon) {
	s, host := member.status(), member.machine.list()
	for _, want := range [][]string{
		{"address " + s.Device.Name, " 10.77.0.2/32 "},
		{"address " + s.Device.Name, " fd77::2/128 "},
	} {
		if len(host.with(want...)) != 1 {
			t.Errorf("no %v on the member:\n%s", want, host.with("address"))
		}
	}
	for _, line := range host.with("route ", "dev "+s.Device.Name+" ", " proto 148 ") {
		if !strings.Contains(line, "table "+text(s.Host.Table)) {
			t.Errorf("a route outside of our own table: %s", line)
		}
	}
	for _, prefix := range []string{"10.77.0.0/24", "fd77::/64", "192.168.7.0/24", "2001:db8:7::/64"} {
		if len(host.with("route table "+text(s.Host.Table), " "+prefix+" ", "dev "+s.Device.Name)) != 1 {
			t.Errorf("no route to %s in table %d:\n%s", prefix, s.Host.Table, host.with("route "))
		}
	}
}

// checkStatus compares what the daemons say with what is so.
func checkStatus(t *testing.T, gateway, member *daemon) {
	var s api.Status
	if err := json.Unmarshal([]byte(member.verb("status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	if s.Role != "member" || s.State != "connected" || s.Name != "laptop" || s.PID != member.cmd.Process.Pid {
		t.Errorf("the member is %s %s %q, pid %d", s.Role, s.State, s.Name, s.PID)
	}
	own := []netip.Addr{netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")}
	if !slices.Equal(s.Addresses, own) {
		t.Errorf("the member's addresses are %v", s.Addresses)
	}
	if len(s.Peers) != 1 {
		t.Fatalf("the member has %d peers", len(s.Peers))
	}
	p := s.Peers[0]
	if !p.Connected || p.Name != "hub" || p.KeyExchange != "X25519MLKEM768" ||
		p.ReceivedPackets == 0 || p.SentPackets == 0 {
		t.Errorf("the member's peer is %+v", p)
	}
	if remote, err := netip.ParseAddrPort(p.Remote); err != nil || remote.Port() != 443 {
		t.Errorf("the member's peer is at %q", p.Remote)
	}
	s = gateway.status()
	if s.Role != "gateway" || s.State != "listening" || s.Name != "hub" || len(s.Peers) != 1 {
		t.Fatalf("the gateway is %+v", s)
	}
	if p := s.Peers[0]; !p.Connected || p.Name != "laptop" || p.KeyExchange != "X25519MLKEM768" {
		t.Errorf("the gateway's peer is %+v", p)
	}
	if !slices.Equal(s.Granted, prefixes("192.168.7.0/24", "2001:db8:7::/64")) {
		t.Errorf("the gateway grants %v", s.Granted)
	}
	for _, d := range []*daemon{gateway, member} {
		if text := d.verb("status"); !strings.Contains(text, "X25519MLKEM768") {
			t.Errorf("status for people does not show the key exchange:\n%s", text)
		}
	}
}

// checkLAN fetches a page from a host behind the gateway, and checks the segment size that the host was told.
func checkLAN(t *testing.T, l, printer *machine) {
	page := strings.Repeat("a page of the printer\n", 10_000)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(page)) })
	for _, address := range []string{"192.168.7.2:80", "[2001:db8:7::2]:80"} {
		server, err := traffic.ServeWeb(printer, address, handler)
		if err != nil {
			t.Fatal(err)
		}
		got, err := traffic.Fetch(within(t, patience), l, server.URL())
		if err != nil || got.Status != http.StatusOK || string(got.Body) != page {
			t.Errorf("page from %s: status %d, %d bytes, %v", address, got.Status, len(got.Body), err)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}
	for address, headers := range map[string]int{"192.168.7.2:8080": 40, "[2001:db8:7::2]:8080": 60} {
		const timestamps = 12
		got, limit := segmentSize(t, l, printer, address), 1300-headers-timestamps
		if got > limit || got < limit-100 {
			t.Errorf("the host at %s sends segments of %d bytes, want %d: the SYN was not clamped", address, got, limit)
		}
	}
}

// segmentSize connects from a to an address of b and returns how long segments b sends.
func segmentSize(t *testing.T, a, b *machine, address string) int {
	t.Helper()
	listener, err := b.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := a.Dial(within(t, patience), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted, err := listener.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	raw, err := accepted.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	var failed error
	err = raw.Control(func(fd uintptr) {
		size, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return size
}

// enoughBulk is far more than passes before the first full-sized segments do, and far less than the slowest machine sends.
const enoughBulk = 64 << 10

// carriesTCP sends bulk TCP both ways between a and an address of b.
func carriesTCP(t *testing.T, a, b *machine, address netip.Addr) {
	t.Helper()
	server := labtest.Serve(t, b, netip.AddrPortFrom(address, 0).String())
	for _, download := range []bool{false, true} {
		result, err := traffic.Bulk{Duration: 500 * time.Millisecond, Download: download}.Run(
			within(t, patience), a, server.Addr())
		if err != nil || result.Bytes < enoughBulk {
			t.Errorf("TCP from %s to %s, download %t: %d bytes, %v; in each %v: %v", a.Name(), address, download,
				result.Bytes, err, result.Interval, result.IntervalBytes)
			continue
		}
		t.Logf("TCP from %s to %s, download %t: %.0f Mbit/s", a.Name(), address, download,
			result.BitsPerSecond()/1e6)
	}
}

func text(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// prefixes parses a list.
func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, p := range texts {
		out[i] = netip.MustParsePrefix(p)
	}
	return out
}

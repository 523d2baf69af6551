package e2e

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/control/api"
)

// Routes that another VPN has put into the main table divert nothing, strict reverse path filters pass
// everything, and the underlay never sees inner traffic: not while packets pass, not while the gateway is
// gone, not after the member was killed.
func TestNothingLeaksAndForeignRoutesDivertNothing(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	foreign := newMachine(t, "foreign")
	cable(l, "vpn0", foreign, "eth0", []string{"172.16.0.2/24", "2001:db8:f::2/64"},
		[]string{"172.16.0.1/24", "2001:db8:f::1/64"})
	for _, prefix := range []string{"0.0.0.0/1", "128.0.0.0/1", "10.77.0.1/32"} {
		l.route(prefix, "172.16.0.1")
	}
	for _, prefix := range []string{"::/1", "8000::/1", "fd77::1/128"} {
		l.route(prefix, "2001:db8:f::1")
	}
	l.route("0.0.0.0/0", gatewayUnderlay4)
	l.route("::/0", gatewayUnderlay6)
	foreign.route("10.77.0.0/24", "172.16.0.2")
	foreign.route("fd77::/64", "2001:db8:f::2")
	for _, m := range []*machine{g, l} {
		m.sysctl("net.ipv4.conf.all.rp_filter", "1")
		m.sysctl("net.ipv4.conf.eth0.rp_filter", "1")
	}
	cableCapture := l.capture("eth0", onlyTheTunnel(443))
	foreignCapture := foreign.capture("eth0", onlyLinkTalk)

	gateway := gatewayUp(g)
	member := l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	gateway4, gateway6 := gateway.address4(), gateway.address6()
	l.reaches(gateway4, gateway6)
	g.reaches(member.address4(), member.address6())
	carriesTCP(t, l, g, gateway4)
	carriesTCP(t, l, g, gateway6)
	targets := []netip.AddrPort{
		netip.AddrPortFrom(gateway4, 7), netip.AddrPortFrom(gateway6, 7),
		netip.MustParseAddrPort("10.77.0.200:7"), netip.MustParseAddrPort("[fd77::200]:7"),
	}
	l.sendMarked(targets...)

	gateway.kill()
	l.sendMarked(targets...)
	member.awaitStatus("without a gateway", func(s api.Status) bool { return s.State == "connecting" })
	l.sendMarked(targets...)
	member.kill()
	if sent := l.sendMarked(targets...); sent != 0 {
		t.Errorf("%d packets for the tunnel left after the member was killed: no guard routes", sent)
	}
	cableCapture.mustBeClean(l, "underlay")
	foreignCapture.mustBeClean(l, "foreign VPN")
	l.must("down", "--state", member.state)
	g.must("down", "--state", gateway.state)
}

// What comes in on another interface than the tunnel's is not taken for inner traffic, neither by its
// destination (CVE-2019-14899) nor by its source.
func TestTheUnderlayCannotSpeakToTunnelAddresses(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	stranger := otherMachine(g)
	gateway := gatewayUp(g)
	member := l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	stranger.route("10.77.0.0/24", "198.51.100.1")
	stranger.route("fd77::/64", "2001:db8:5::1")
	stranger.reaches(netip.MustParseAddr("198.51.100.1"))
	stranger.doesNotReach(gateway.address4(), gateway.address6(), member.address4(), member.address6())
	// Nor can it pass for a member.
	stranger.address("eth0", "10.77.0.2/32", "fd77::2/128")
	for _, c := range []struct {
		from, to string
		taken    bool
	}{
		{"10.77.0.2:0", "198.51.100.1:5000", false},
		{"[fd77::2]:0", "[2001:db8:5::1]:5000", false},
		{"198.51.100.2:0", "198.51.100.1:5000", true},
		{"[2001:db8:5::2]:0", "[2001:db8:5::1]:5000", true},
	} {
		n := stranger.delivers(g, netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to), c.taken)
		if (n > 0) != c.taken {
			t.Errorf("%d packets from %s to %s were taken from the underlay", n, c.from, c.to)
		}
	}
	l.reaches(gateway.address4(), gateway.address6())
}

// The LAN that the gateway opens may be the one in which the members find it: what is for the LAN goes into
// the tunnel, the tunnel's own packets go to the LAN, and strict reverse path filters pass both.
func TestTheLANThatTheGatewayIsIn(t *testing.T) {
	t.Parallel()
	g, router, l := newMachine(t, "gateway"), newMachine(t, "router"), newMachine(t, "laptop")
	cable(g, "eth0", router, "wan0", []string{gatewayUnderlay4 + "/24"}, []string{"192.0.2.254/24"})
	cable(router, "lan0", l, "eth0", []string{"192.168.1.1/24"}, []string{"192.168.1.2/24"})
	l.route("0.0.0.0/0", "192.168.1.1")
	g.route("192.168.1.0/24", "192.0.2.254")
	if err := router.Forward(); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*machine{g, l} {
		m.sysctl("net.ipv4.conf.all.rp_filter", "1")
		m.sysctl("net.ipv4.conf.eth0.rp_filter", "1")
	}
	gateway := gatewayUp(g, "--advertise-routes", "192.0.2.0/24")
	noPing := l.capture("eth0", func(frame []byte) bool {
		d, ok := parseFrame(frame)
		return !ok || d.protocol != unix.IPPROTO_ICMP && d.protocol != unix.IPPROTO_TCP
	})
	l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	l.reaches(gateway.address4(), netip.MustParseAddr(gatewayUnderlay4), netip.MustParseAddr("192.0.2.254"))
	carriesTCP(t, l, g, netip.MustParseAddr(gatewayUnderlay4))
	carriesTCP(t, l, router, netip.MustParseAddr("192.0.2.254"))
	noPing.mustBeClean(l, "underlay")
}

package e2e

import (
	"net/netip"
	"testing"

	"github.com/aethertunnel/aethertunnel/control/api"
)

// Members reach each other through a gateway whose kernel forwards nothing.
func TestMembersReachEachOtherWithoutForwarding(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	o := otherMachine(g)
	gateway := gatewayUp(g)
	first := l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	second := o.up("other", "--name", "other", gateway.invite()).connected()
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if v := g.readSysctl(key); v != "0" {
			t.Errorf("%s is %s although no route is granted", key, v)
		}
	}
	l.reaches(second.address4(), second.address6())
	o.reaches(first.address4(), first.address6())
	carriesTCP(t, l, o, second.address4())
	carriesTCP(t, l, o, second.address6())
}

// A member sends from its own addresses only, whatever its machine has.
func TestAMemberCannotSendFromAnAddressThatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	gateway, member := tunnel(t)
	l := member.machine
	device := member.status().Device.Name
	l.address(device, "10.77.0.99/32", "fd77::99/128")
	for _, pair := range [][2]string{
		{"10.77.0.99:0", netip.AddrPortFrom(gateway.address4(), 5000).String()},
		{"[fd77::99]:0", netip.AddrPortFrom(gateway.address6(), 5000).String()},
	} {
		before := member.status().Drops["source_not_assigned"]
		from, to := netip.MustParseAddrPort(pair[0]), netip.MustParseAddrPort(pair[1])
		if n := l.delivers(gateway.machine, from, to, false); n != 0 {
			t.Errorf("%d packets from %s arrived", n, from)
		}
		member.awaitStatus("counting the drops", func(s api.Status) bool {
			return s.Drops["source_not_assigned"] >= before+deliveries
		})
	}
	for _, own := range []netip.Addr{member.address4(), member.address6()} {
		to := gateway.address4()
		if own.Is6() {
			to = gateway.address6()
		}
		from, at := netip.AddrPortFrom(own, 0), netip.AddrPortFrom(to, 5000)
		if n := l.delivers(gateway.machine, from, at, true); n != deliveries {
			t.Errorf("%d of %d packets from %s arrived", n, deliveries, own)
		}
	}
}

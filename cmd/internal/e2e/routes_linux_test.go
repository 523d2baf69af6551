package e2e

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/control/api"
)

// behindMember makes a gateway, a machine with a LAN behind it, and a machine in that LAN.
func behindMember(t *testing.T) (gateway, office, printer *machine) {
	t.Helper()
	gateway, office = newMachine(t, "gateway"), newMachine(t, "office")
	cable(gateway, "eth0", office, "eth0", []string{gatewayUnderlay4 + "/24"}, []string{laptopUnderlay4 + "/24"})
	printer = newMachine(t, "printer")
	cable(office, "lan0", printer, "eth0", []string{"192.168.7.1/24", "2001:db8:7::1/64"},
		[]string{"192.168.7.2/24", "2001:db8:7::2/64"})
	return gateway, office, printer
}

// A member's LAN is reached only once the operator of the gateway has approved it, and forwarding is on only
// then.
func TestALANBehindAMemberNeedsApproval(t *testing.T) {
	t.Parallel()
	g, o, _ := behindMember(t)
	other := otherMachine(g)
	lan4, lan6 := netip.MustParseAddr("192.168.7.2"), netip.MustParseAddr("2001:db8:7::2")
	gateway := gatewayUp(g)
	office := o.up("office", "--name", "office", "--advertise-routes", "192.168.7.0/24,2001:db8:7::/64",
		gateway.invite()).connected()
	laptop := other.up("laptop", "--name", "laptop", gateway.invite()).connected()
	gateway.await("routes approve office")
	untouched := forwarding(o)

	g.doesNotReach(lan4, lan6)
	other.doesNotReach(lan4, lan6)
	if out := gateway.verb("routes"); !strings.Contains(out, "waits for approval") {
		t.Errorf("routes says\n%s", out)
	}
	g.aetherd("routes", "approve", "nobody", "192.168.7.0/24", "--state", gateway.state).refused(t, "nobody")

	gateway.verb("routes", "approve", "office", "192.168.7.0/24")
	gateway.verb("routes", "approve", "office", "2001:db8:7::/64")
	office.awaitStatus("granting its LAN", func(s api.Status) bool { return len(s.Granted) == 2 })
	laptop.awaitStatus("told of the LAN", func(s api.Status) bool {
		return slices.Contains(s.Routes, netip.MustParsePrefix("192.168.7.0/24")) &&
			slices.Contains(s.Routes, netip.MustParsePrefix("2001:db8:7::/64"))
	})
	for _, m := range []*machine{g, other} {
		m.eventuallyReaches(lan4)
		m.eventuallyReaches(lan6)
	}
	if slices.Equal(forwarding(o), untouched) {
		t.Error("the LAN is reached, and no parameter says that the machine forwards")
	}
	if on := forwarding(g).with("= 1"); len(on) != 0 {
		t.Errorf("the gateway forwards, which is not its business:\n%s", on)
	}

	// The route goes with the member, and so does everything on its machine.
	office.stop()
	o.mustBeUntouched("after the member has gone")
	laptop.awaitStatus("told that the LAN is gone", func(s api.Status) bool {
		return !slices.Contains(s.Routes, netip.MustParsePrefix("192.168.7.0/24"))
	})
	if out := gateway.verb("routes"); !strings.Contains(out, "not offered now") {
		t.Errorf("routes says\n%s", out)
	}
	other.doesNotReach(lan4, lan6)
	// The approval stays.
	office = o.up("office", "--advertise-routes", "192.168.7.0/24,2001:db8:7::/64").connected()
	other.eventuallyReaches(lan4)
	other.eventuallyReaches(lan6)
	// Offering nothing any more takes the forwarding back.
	office.stop()
	o.up("office").connected()
	if got := forwarding(o); !slices.Equal(got, untouched) {
		t.Errorf("forwarding is on without a grant:\n%s", untouched.diff(got))
	}
	other.doesNotReach(lan4, lan6)
}

// forwarding reads the forwarding switches of a machine.
func forwarding(m *machine) listing {
	var out listing
	for _, line := range m.list().with("sysctl ") {
		if strings.Contains(line, "forwarding = ") || strings.Contains(line, "ip_forward = ") {
			out = append(out, line)
		}
	}
	return out
}

// With an invite made for it, a member's LAN is open at once.
func TestALANComesWithTheInvite(t *testing.T) {
	t.Parallel()
	g, o, _ := behindMember(t)
	gateway := gatewayUp(g)
	office := o.up("office", "--name", "office", "--advertise-routes", "192.168.7.0/24,2001:db8:7::/64",
		gateway.invite("--routes", "192.168.7.0/24")).connected()
	g.eventuallyReaches(netip.MustParseAddr("192.168.7.2"))
	g.doesNotReach(netip.MustParseAddr("2001:db8:7::2")) // offered, not in the invite
	office.awaitStatus("granting one LAN", func(s api.Status) bool {
		return slices.Equal(s.Granted, prefixes("192.168.7.0/24"))
	})
}

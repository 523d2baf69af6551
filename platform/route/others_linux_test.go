package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
	"github.com/aethertunnel/aethertunnel/platform/sysctl"
)

func TestChangesOfOthersAreLeftAndReported(t *testing.T) {
	host(t)
	d := one(t)
	p := goodPlan()
	d.set(p)
	// A route of somebody else in the slot of our guard.
	guard := routeThing{Prefix: p.Guards[0], Table: p.Table, Metric: GuardMetric}
	foreignRoute := guard.message()
	foreignRoute.Type, foreignRoute.Protocol = unix.RTN_BLACKHOLE, unix.RTPROT_STATIC
	// A route like ours, but put there by somebody else.
	id := deviceID{Device: "aether0", Index: hosttest.Index(t, "aether0")}
	inner := routeThing{deviceID: id, Prefix: netip.MustParsePrefix("10.77.0.0/24"), Table: p.Table, Metric: 50}
	foreignInner := inner.message()
	foreignInner.Protocol = unix.RTPROT_STATIC
	// A rule of somebody else at our priority instead of ours.
	ours := ruleThing{Selectors: p.Selectors}
	foreignRule := netlink.NewRule()
	foreignRule.Family, foreignRule.Priority, foreignRule.Table = unix.AF_INET, int(p.Priority), 254
	link, err := netlink.LinkByName("aether0")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		netlink.RouteDel(guard.message()), netlink.RouteAdd(foreignRoute),
		netlink.RouteDel(inner.message()), netlink.RouteAdd(foreignInner),
		netlink.RuleDel(ours.message()), netlink.RuleAdd(foreignRule),
		netlink.LinkSetMTU(link, 1400),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	hosttest.Sysctl(t, "net/ipv4/conf/all/src_valid_mark", "0")
	left := d.undo()
	var things []string
	for _, l := range left {
		things = append(things, l.Thing)
		if l.Set == "" || l.Found == "" || l.Set == l.Found {
			t.Errorf("line %+v", l)
		}
	}
	want := []string{
		"link aether0 mtu", "ipv4 rule priority 2000", "route 100.80.0.0/16 table 123456 metric 1073741824",
		"route 10.77.0.0/24 table 123456 metric 50",
	}
	slices.Sort(want)
	slices.Sort(things)
	if !slices.Equal(things, want) {
		t.Errorf("left %q, want %q", things, want)
	}
	state, err := readKernel()
	if err != nil {
		t.Fatal(err)
	}
	if len(state.routes[guard.slot()]) != 1 {
		t.Error("the route of somebody else is gone")
	}
	theirs := func(r netlink.Rule) bool { return r.Priority == int(p.Priority) }
	if !slices.ContainsFunc(state.rules[unix.AF_INET], theirs) {
		t.Error("the rule of somebody else is gone")
	}
	if id, _ := state.find("aether0"); state.links[id.Index].MTU != 1400 {
		t.Error("the mtu of somebody else is gone")
	}
}

func TestForeignRouteInOurPlaceIsAnError(t *testing.T) {
	host(t)
	d := one(t)
	p := goodPlan()
	guard := routeThing{Prefix: p.Guards[0], Table: p.Table, Metric: GuardMetric}
	foreign := guard.message()
	foreign.Type, foreign.Protocol = unix.RTN_BLACKHOLE, unix.RTPROT_STATIC
	if err := netlink.RouteAdd(foreign); err != nil {
		t.Fatal(err)
	}
	if _, err := d.m.Set(p); !errors.Is(err, ErrOccupied) {
		t.Errorf("Set: %v", err)
	}
}

func TestTwoDaemonsSideBySide(t *testing.T) {
	for _, firstOut := range []int{0, 1} {
		hosttest.Enter(t)
		for _, name := range []string{"aether0", "aether1"} {
			hosttest.Link(t, name, name+"-p")
			hosttest.Up(t, name+"-p")
			hosttest.Settle(t, name)
		}
		before := hosttest.Listing(t)
		dir := t.TempDir()
		var both []*daemon
		for i, name := range []string{"aether0", "aether1"} {
			state := filepath.Join(dir, name)
			d := start(t, dir, state)
			p := goodPlan()
			var err error
			if p.Selectors, err = Choose(state, Selectors{}); err != nil {
				t.Fatal(err)
			}
			p.Device = name
			p.Addresses = prefixes(fmt.Sprintf("100.%d.0.2/16", 80+i))
			p.Routes = []Route{{Prefix: netip.MustParsePrefix(fmt.Sprintf("100.%d.0.0/16", 80+i))}}
			p.Guards = []netip.Prefix{p.Routes[0].Prefix}
			d.set(p)
			again, err := Choose(state, p.Selectors)
			if err != nil || again != p.Selectors {
				t.Errorf("remembered %+v, chosen %+v, %v", p.Selectors, again, err)
			}
			if other, err := Choose(state, Selectors{}); err != nil || other == p.Selectors {
				t.Errorf("selectors in use were chosen again: %+v, %v", other, err)
			}
			both = append(both, d)
		}
		both[firstOut].undo()
		if got := hosttest.ReadSysctl(t, sysctl.SrcValidMark); got != "1" {
			t.Errorf("src_valid_mark %s while one daemon runs", got)
		}
		both[1-firstOut].mustRestore(before, fmt.Sprintf("daemon %d out first", firstOut))
	}
}

// TestForeignRoutesDivertNoInnerTraffic sends packets for inner addresses while the main table has more
// specific routes for them to another interface, and reads them from the TUN device. Marked packets go the
// other way.
func TestForeignRoutesDivertNoInnerTraffic(t *testing.T) {
	hosttest.Enter(t)
	hosttest.Wired(t, "eth0")
	hosttest.Address(t, "eth0", "192.0.2.2/24")
	hosttest.Address(t, "eth0", "2001:db8::2/64")
	for prefix, via := range map[string]string{
		"0.0.0.0/1": "192.0.2.1", "128.0.0.0/1": "192.0.2.1", "100.80.0.9/32": "192.0.2.1",
		"::/1": "2001:db8::1", "8000::/1": "2001:db8::1", "fd80::9/128": "2001:db8::1",
	} {
		hosttest.Route(t, prefix, "eth0", via)
	}
	tun := hosttest.TUN(t, "aether0")
	d := one(t)
	p := goodPlan()
	d.set(p)
	for _, inner := range []string{"100.80.0.9", "fd80::9"} {
		target := netip.MustParseAddr(inner)
		send(t, target, inner)
		if got := readPacket(t, tun, target); !strings.HasSuffix(string(got), inner) {
			t.Errorf("packet for %s: %x", inner, got)
		}
		marked, err := netlink.RouteGetWithOptions(net.ParseIP(inner), &netlink.RouteGetOptions{Mark: p.Mark})
		if err != nil || marked[0].LinkIndex != hosttest.Index(t, "eth0") {
			t.Errorf("marked packets for %s: %v, %v", inner, marked, err)
		}
	}
}

// send sends one UDP datagram from a socket of the calling thread's namespace.
func send(t *testing.T, target netip.Addr, payload string) {
	t.Helper()
	family := familyOf(target)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: 9, Addr: target.As16()}
	if target.Is4() {
		to = &unix.SockaddrInet4{Port: 9, Addr: target.As4()}
	}
	if err := unix.Sendto(fd, []byte(payload), 0, to); err != nil {
		t.Fatalf("send to %v: %v", target, err)
	}
}

// readPacket reads from the TUN device until a packet for target comes.
func readPacket(t *testing.T, tun *os.File, target netip.Addr) []byte {
	t.Helper()
	return hosttest.ReadUntil(t, tun, "a packet for "+target.String(), func(packet []byte) bool {
		destination := packet[16:20]
		if packet[0]>>4 == 6 {
			destination = packet[24:40]
		}
		addr, ok := netip.AddrFromSlice(destination)
		return ok && addr == target
	})
}

func TestAddressThatWasThereIsKept(t *testing.T) {
	host(t)
	hosttest.Up(t, "aether0")
	hosttest.Address(t, "aether0", "100.80.0.2/16")
	before := hosttest.Listing(t)
	d := one(t)
	d.set(goodPlan())
	d.mustRestore(before, "with an address of somebody else")
}

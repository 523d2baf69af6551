package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/control/api"
)

// defaultCycles is how often a daemon is killed in the short form.
const defaultCycles = 10

// A gateway and a member that are killed again and again come back each time, and the last down leaves
// nothing.
func TestKilledDaemonsComeBackAndDownLeavesNothing(t *testing.T) {
	t.Parallel()
	cycles := soakCycles(t)
	if cycles == 0 {
		cycles = defaultCycles
	}
	g, l := twoMachines(t)
	lan := newMachine(t, "lan")
	cable(g, "lan0", lan, "eth0", []string{"192.168.7.1/24", "2001:db8:7::1/64"},
		[]string{"192.168.7.2/24", "2001:db8:7::2/64"})
	gatewayArgs := []string{
		"--network", testNetwork, "--name", "hub", "--port-mapping", "off",
		"--advertise-routes", "192.168.7.0/24,2001:db8:7::/64",
	}
	gateway := g.start("gateway", gatewayArgs...).listening()
	memberArgs := []string{"--name", "laptop", gateway.invite()}
	for i := range cycles {
		member := l.start("laptop", memberArgs...).connected()
		memberArgs = []string{"--name", "laptop"}
		if i == 0 {
			l.reaches(gateway.address4(), gateway.address6())
		}
		// Each dies first half of the time.
		if i%2 == 0 {
			member.kill()
			gateway.kill()
		} else {
			gateway.kill()
			member.kill()
		}
		gateway = g.start("gateway", gatewayArgs...).listening()
	}
	// Now as if the machines were put away: down without any up.
	l.must("down", "--state", l.state("laptop"))
	l.mustBeUntouched("after down of a killed member")
	gateway.kill()
	out := g.must("down", "--state", gateway.state)
	if !strings.Contains(out, "took back") {
		t.Errorf("down after a crash says %q", out)
	}
	g.mustBeUntouched("after down of a killed gateway")
	// A second down finds nothing, and says so.
	if out := g.must("down", "--state", gateway.state); !strings.Contains(out, "nothing to take back") {
		t.Errorf("a second down says %q", out)
	}

	// And in good order, through down.
	gateway = g.start("gateway", gatewayArgs...).listening()
	member := l.start("laptop", memberArgs...).connected()
	for _, d := range []*daemon{member, gateway} {
		if out := d.verb("down"); !strings.Contains(out, "stopped") {
			t.Errorf("down of %s says %q", d, out)
		}
		if code := d.wait(); code != 0 {
			t.Errorf("%s ended with code %d after down", d, code)
		}
		d.machine.mustBeUntouched("after down")
	}
}

// What somebody else has changed while a daemon ran, or lay dead, is left as it is and named.
func TestForeignChangesAreLeftAndReported(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	otherMachine(g)
	gateway := gatewayUp(g, "--advertise-routes", "198.51.100.0/24")
	member := l.start("laptop", "--name", "laptop", gateway.invite()).connected()
	s := gateway.status()
	if v := g.readSysctl("net.ipv4.conf.eth1.forwarding"); v != "1" {
		t.Fatalf("eth1 does not forward while a route behind it is granted: %s", v)
	}
	gateway.kill()

	// An administrator has ideas about a parameter, adds a rule to the table and a route to the routing
	// table.
	g.sysctl("net.ipv4.conf.all.src_valid_mark", "2")
	table := addForeignRule(t, g)
	foreign := &netlink.Route{
		Table: int(s.Host.Table), Dst: &net.IPNet{IP: net.IPv4(203, 0, 113, 0), Mask: net.CIDRMask(24, 32)},
		Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_STATIC,
	}
	if err := g.Handle().RouteAdd(foreign); err != nil {
		t.Fatal(err)
	}
	out := g.must("down", "--state", gateway.state)
	for _, want := range []string{"net/ipv4/conf/all/src_valid_mark", table} {
		if !strings.Contains(out, want) {
			t.Errorf("down does not name %s, which was left:\n%s", want, out)
		}
	}
	if v := g.readSysctl("net.ipv4.conf.all.src_valid_mark"); v != "2" {
		t.Errorf("a parameter that somebody else has set became %s", v)
	}
	now := g.list()
	if len(now.with("table "+text(s.Host.Table), "203.0.113.0/24")) != 1 {
		t.Error("a foreign route in our routing table is gone")
	}
	if len(now.with("nft", table, "with 1 rules")) != 1 {
		t.Errorf("the foreign rule in our nft table is gone, or not alone:\n%s", now.with("nft"))
	}
	if left := now.with(" proto 148 "); len(left) != 0 {
		t.Errorf("our own routes are left:\n%s", left)
	}
	// The next start works with what it finds.
	again := g.up("gateway").listening()
	l.eventuallyReaches(again.address4())
	member.awaitStatus("connected again", func(s api.Status) bool {
		return s.Peers[0].Connected && s.Peers[0].Since.After(again.status().Started)
	})
	again.stop()
	member.stop()
	removeForeign(t, g, foreign, table)
	g.sysctl("net.ipv4.conf.all.src_valid_mark", "0")
}

// addForeignRule puts a rule of somebody else into a chain of the only table of a machine, and returns the
// table's name.
func addForeignRule(t *testing.T, m *machine) string {
	t.Helper()
	name := ""
	err := m.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		chains, err := c.ListChains()
		if err != nil {
			return err
		}
		if len(chains) == 0 {
			return fmt.Errorf("a killed gateway has left no chain")
		}
		name = chains[0].Table.Name
		count := []expr.Any{&expr.Counter{}}
		c.AddRule(&nftables.Rule{Table: chains[0].Table, Chain: chains[0], Exprs: count})
		return c.Flush()
	})
	if err != nil {
		t.Fatalf("add a rule on %s: %v", m.Name(), err)
	}
	return name
}

// removeForeign takes back what the test has done to the machine.
func removeForeign(t *testing.T, m *machine, route *netlink.Route, table string) {
	t.Helper()
	if err := m.Handle().RouteDel(route); err != nil {
		t.Error(err)
	}
	err := m.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: table})
		return c.Flush()
	})
	if err != nil {
		t.Error(err)
	}
}

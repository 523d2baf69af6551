package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

var (
	sharedBlock = netip.MustParsePrefix("100.64.0.0/10")
	localBlock  = netip.MustParsePrefix("fd00::/8")
)

// Without --network a gateway finds prefixes that the host does not know, even when only one is left.
func TestADefaultNetworkAvoidsWhatTheHostKnows(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	g.route("0.0.0.0/0", laptopUnderlay4)
	free := netip.MustParsePrefix("100.93.0.0/16")
	var last netip.Prefix
	for second := 64; second < 128; second++ {
		p := netip.MustParsePrefix(fmt.Sprintf("100.%d.0.0/16", second))
		if p != free {
			g.route(p.String(), laptopUnderlay4)
			last = p
		}
	}
	gateway := g.up("gateway", "--name", "hub", "--port-mapping", "off").listening()
	s := gateway.status()
	if len(s.Prefixes) != 2 {
		t.Fatalf("the network has prefixes %v", s.Prefixes)
	}
	var have4, have6 netip.Prefix
	for _, p := range s.Prefixes {
		if p.Addr().Is4() {
			have4 = p
		} else {
			have6 = p
		}
	}
	if have4 != free {
		t.Errorf("the network's IPv4 prefix is %s, want the one that is free, %s", have4, free)
	}
	if have6.Bits() != 48 || !localBlock.Contains(have6.Addr()) {
		t.Errorf("the network's IPv6 prefix is %s", have6)
	}
	if gateway.address4() != free.Addr().Next() || gateway.address6() != have6.Addr().Next() {
		t.Errorf("the gateway has %v, not the first addresses", s.Addresses)
	}
	gateway.await("aether://") // the first start prints how to join
	l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	l.reaches(gateway.address4(), gateway.address6())

	second := networkUp(g, "second", "10.99.0.0/24,fd99::/64", "--listen", ":8443")
	third := g.start("third", "--listen", ":9443", "--port-mapping", "off")
	third.refused("--network")
	if overlap := second.status().Prefixes; overlap[0].Overlaps(last) {
		t.Errorf("%v", overlap)
	}
}

// A network's IPv6 prefix is random: two gateways do not choose the same.
func TestTwoDefaultNetworksDiffer(t *testing.T) {
	t.Parallel()
	seen := map[netip.Prefix]bool{}
	g, _ := twoMachines(t)
	for _, name := range []string{"one", "two"} {
		gateway := g.up(name, "--name", name, "--port-mapping", "off").listening()
		for _, p := range gateway.status().Prefixes {
			if p.Addr().Is4() { // one of 64, so two networks may well have the same
				if p.Bits() != 16 || !sharedBlock.Contains(p.Addr()) {
					t.Errorf("the IPv4 prefix is %s", p)
				}
				continue
			}
			if seen[p] {
				t.Errorf("both networks have %s", p)
			}
			seen[p] = true
		}
		gateway.await("aether://")
		if out := gateway.output.String(); strings.Count(out, "aether://") != 1 {
			t.Errorf("a new gateway prints one join line:\n%s", out)
		}
		gateway.stop()
	}
	if len(seen) != 2 {
		t.Errorf("prefixes: %v", seen)
	}
}

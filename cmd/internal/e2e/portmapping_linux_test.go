package e2e

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/aethertunnel/aethertunnel/control/api"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

// A gateway behind a home router asks it for the port: the invite leads a member from outside through the
// mapping, which is made again after the router has lost it, and removed in the end.
func TestAGatewayBehindAHomeRouter(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"PCP", "NAT-PMP", "UPnP"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			g, l, router := behindRouter(t, protocol)
			gateway := g.up("gateway", "--network", testNetwork, "--name", "hub").listening()
			gateway.await("reachable")
			if lines := gateway.output.lines("same local network"); len(lines) != 0 {
				t.Errorf("the gateway has a public address and says: %q", lines)
			}
			first := router.mappings()
			inside := netip.MustParseAddrPort(homeHost + ":443")
			if len(first) != 1 || first[0].outside == portOfOthers || first[0].inside != inside {
				t.Fatalf("the router has the mappings %v", first)
			}
			outside := homeOutside + ":" + strconv.Itoa(int(first[0].outside))
			invite := gateway.invite()
			parsed, err := token.Parse(invite)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(parsed.Addresses, []string{outside, homeHost + ":443"}) {
				t.Errorf("the invite has the addresses %q", parsed.Addresses)
			}

			member := l.up("laptop", "--name", "laptop", invite).connected()
			if p := member.status().Peers[0]; p.Remote != outside {
				t.Errorf("the member has come in by %s, want %s", p.Remote, outside)
			}
			l.reaches(gateway.address4(), gateway.address6())
			s := newStream(t, l, g, gateway.address4())
			s.flows(enough)

			router.restart()
			if protocol == "UPnP" {
				router.replug(g) // it has no announcement
			} else {
				router.announce()
			}
			l.eventuallyReaches(gateway.address4())
			s.flows(enough)
			s.finish()
			if again := router.mappings(); !slices.Equal(again, first) {
				t.Errorf("after its restart the router has the mappings %v, before %v", again, first)
			}
			member.stop()
			gateway.stop()
			if left := router.mappings(); len(left) != 0 {
				t.Errorf("the gateway has gone, and the router still maps %v", left)
			}
		})
	}
}

// Behind a router that maps nothing, a gateway says so, and which port to forward.
func TestAGatewayBehindARouterThatMapsNothing(t *testing.T) {
	t.Parallel()
	g, _, _ := behindRouter(t, "")
	gateway := g.up("gateway", "--network", testNetwork, "--listen", ":4433").listening()
	const remedy = "forward UDP port 4433 to this machine in the router, " +
		"or name the public address with --advertise HOST:4433"
	gateway.await("only machines in the same local network can reach this gateway: " + remedy)
	gateway.awaitStatus("telling of it", func(s api.Status) bool {
		return len(s.Notices) == 1 && slices.Equal(s.Advertise, []string{homeHost + ":4433"})
	})
}

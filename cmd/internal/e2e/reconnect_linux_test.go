package e2e

import (
	"context"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/impair"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/labtest"
	"github.com/aethertunnel/aethertunnel/control/api"
)

// enough is how many bytes of a stream show that it flows.
const enough = 20 * blockBytes

// A connection through the tunnel does not notice that the gateway was stopped, or killed, and started again.
func TestConnectionsSurviveARestartOfTheGateway(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gateway, member := tunnel(t)
			address := member.address4()
			// The member's end keeps its address; the gateway's would lose its own for the time of the
			// restart, which TCP survives as well.
			s := newStream(t, gateway.machine, member.machine, address)
			s.flows(enough)
			gateway.signal(signal)
			gateway.wait()
			begin := time.Now()
			gateway.machine.up("gateway").listening()
			listening := time.Since(begin)
			member.machine.eventuallyReaches(netip.MustParseAddr("10.77.0.1"))
			tunnel := time.Since(begin)
			s.flows(enough)
			t.Logf("%s: the gateway listens again after %v, packets pass after %v, the stream flows after %v",
				name, listening, tunnel, time.Since(begin))
			s.finish()
		})
	}
}

// The member's address changes, as in a network that renumbers: the session goes on from the new one.
func TestConnectionsSurviveAChangeOfAddress(t *testing.T) {
	t.Parallel()
	g, l := newMachine(t, "gateway"), newMachine(t, "laptop")
	cable(g, "eth0", l, "eth0", []string{gatewayUnderlay4 + "/24"}, []string{laptopUnderlay4 + "/24"})
	gateway := gatewayUp(g)
	member := l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	s := newStream(t, l, g, gateway.address4())
	s.flows(enough)
	before, since := gateway.sessions(), *member.status().Peers[0].Since

	begin := time.Now()
	changeAddress(t, l, laptopUnderlay4+"/24", "192.0.2.77/24")
	s.flows(enough)
	t.Logf("the stream flows %v after the change of address", time.Since(begin))
	gateway.awaitStatus("seeing the new address", func(s api.Status) bool {
		return len(s.Peers) == 1 && s.Peers[0].Connected && strings.HasPrefix(s.Peers[0].Remote, "192.0.2.77:")
	})
	s.finish()
	if n := gateway.sessions() - before; n != 0 {
		t.Errorf("%d new sessions were made", n)
	}
	if p := member.status().Peers[0]; !p.Since.Equal(since) {
		t.Errorf("the member has a session since %s, before the change it had one since %s", p.Since, since)
	}
}

// changeAddress renumbers a machine, until the end of the test.
func changeAddress(t *testing.T, m *machine, from, to string) {
	t.Helper()
	if err := m.Interface("eth0").ChangeAddress(from, to); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Interface("eth0").ChangeAddress(to, from); err != nil {
			t.Error(err)
		}
	})
}

// The router between member and gateway forgets its translations, and gives the member's packets another
// port: the session goes on.
func TestConnectionsSurviveARebindingOfTheNAT(t *testing.T) {
	t.Parallel()
	g, router, l := newMachine(t, "gateway"), newMachine(t, "router"), newMachine(t, "laptop")
	cable(g, "eth0", router, "wan0", []string{gatewayUnderlay4 + "/24"}, []string{"192.0.2.254/24"})
	cable(router, "lan0", l, "eth0", []string{"192.168.1.1/24"}, []string{"192.168.1.2/24"})
	l.route("0.0.0.0/0", "192.168.1.1")
	translate(t, router)
	gateway := gatewayUp(g)
	l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	s := newStream(t, l, g, gateway.address4())
	s.flows(enough)
	before, remote := gateway.sessions(), gateway.status().Peers[0].Remote
	for range 3 {
		begin := time.Now()
		forget(t, router)
		gateway.awaitStatus("seeing another port", func(s api.Status) bool {
			return len(s.Peers) == 1 && s.Peers[0].Connected && s.Peers[0].Remote != remote
		})
		s.flows(enough)
		moved := gateway.status().Peers[0].Remote
		t.Logf("from %s to %s: the stream flows after %v", remote, moved, time.Since(begin))
		remote = moved
	}
	s.finish()
	if n := gateway.sessions() - before; n != 0 {
		t.Errorf("%d new sessions were made", n)
	}
}

// translate makes a machine a router with masquerade to random ports on wan0.
func translate(t *testing.T, m *machine) {
	t.Helper()
	if err := m.Forward(); err != nil {
		t.Fatal(err)
	}
	err := m.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "nat"})
		chain := c.AddChain(&nftables.Chain{
			Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		name := append([]byte("wan0"), make([]byte, unix.IFNAMSIZ-len("wan0"))...)
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
			&expr.Masq{FullyRandom: true},
		}})
		return c.Flush()
	})
	if err != nil {
		t.Fatalf("make a NAT of %s: %v", m.Name(), err)
	}
}

// forget makes a router lose its translations.
func forget(t *testing.T, m *machine) {
	t.Helper()
	err := m.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer h.Close()
		return h.ConntrackTableFlush(netlink.ConntrackTable)
	})
	if err != nil {
		t.Fatalf("flush the translations of %s: %v", m.Name(), err)
	}
}

// No UDP passes for a long time, as behind a failing router.
func TestConnectionsSurviveABlackoutOfUDP(t *testing.T) {
	t.Parallel()
	blackout := 8 * time.Second
	if soakCycles(t) > 0 {
		blackout = 30 * time.Second
	}
	g, l := newMachine(t, "gateway"), newMachine(t, "laptop")
	link := labtest.Emulate(t, g.Interface("eth0"), l.Interface("eth0"), lab.EmulatorConfig{Seed: 5})
	g.address("eth0", gatewayUnderlay4+"/24", gatewayUnderlay6+"/64")
	l.address("eth0", laptopUnderlay4+"/24", laptopUnderlay6+"/64")
	if err := link.SetBoth(impair.Impairments{Delay: 5 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	gateway := gatewayUp(g)
	l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	s := newStream(t, l, g, gateway.address4())
	s.flows(enough)
	before := gateway.sessions()
	if err := link.SetBoth(impair.Impairments{Delay: 5 * time.Millisecond, BlockUDP: true}); err != nil {
		t.Fatal(err)
	}
	// The blackout is what is tested, not waited for.
	dark, cancel := context.WithTimeout(t.Context(), blackout)
	<-dark.Done()
	cancel()
	stood := s.verified.Load()
	if err := link.SetBoth(impair.Impairments{Delay: 5 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	l.eventuallyReaches(gateway.address4())
	tunnel := time.Since(begin)
	s.flows(enough)
	t.Logf("%v of blackout after %d bytes: packets pass after %v, the stream flows after %v, %d new sessions",
		blackout, stood, tunnel, time.Since(begin), gateway.sessions()-before)
	s.finish()
}

package e2e

import (
	"context"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/control/api"
)

// --detach returns when packets pass, and down ends what it has left running.
func TestDetachReturnsWhenPacketsPass(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	stopDetached(g, "gateway")
	stopDetached(l, "laptop")
	out := g.must("up", "--detach", "--state", g.state("gateway"), "--network", testNetwork, "--port-mapping", "off")
	if !strings.Contains(out, "in the background") {
		t.Errorf("up --detach says %q", out)
	}
	invite := strings.TrimSpace(g.must("invite", "--state", g.state("gateway")))
	// The invite comes on standard input, as from a file that nobody else can read.
	o := l.aetherdWith(func(c *exec.Cmd) { c.Stdin = strings.NewReader(invite + "\n") },
		"up", "-", "--detach", "--state", l.state("laptop"), "--name", "laptop")
	if o.code != 0 {
		t.Fatalf("up - --detach: exit %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	s, err := api.NewClient(l.state("laptop")).Status(within(t, patience))
	if err != nil || s.State != "connected" {
		t.Fatalf("after --detach the member is %q, %v", s.State, err)
	}
	l.reaches(addressesOf(t, s.Peers[0])...)
	for _, m := range []*machine{l, g} {
		state := map[*machine]string{l: "laptop", g: "gateway"}[m]
		if out := m.must("down", "--state", m.state(state)); !strings.Contains(out, "stopped") {
			t.Errorf("down says %q", out)
		}
		m.mustBeUntouched("after down")
	}
	// Reconnecting in the background.
	g.must("up", "--detach", "--state", g.state("gateway"), "--port-mapping", "off")
	l.must("up", "--detach", "--state", l.state("laptop"))
	l.reaches(addressesOf(t, s.Peers[0])...)
	l.must("down", "--state", l.state("laptop"))
	g.must("down", "--state", g.state("gateway"))
}

// --detach that does not get through says why, and leaves nothing running.
func TestDetachFailsWithTheReason(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	gateway := gatewayUp(g)
	member := l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	invite := gateway.invite()
	member.stop()
	taken := g.aetherd("up", "--detach", "--state", g.state("other"), "--network", "10.78.0.0/24")
	taken.refused(t, "443", "--listen")
	gateway.stop()
	stopDetached(l, "laptop")
	stopDetached(l, "new")
	// Joining and reconnecting wait side by side.
	joined := make(chan outcome, 1)
	go func() { joined <- l.aetherd("up", "--detach", "--state", l.state("new"), invite) }()
	l.aetherd("up", "--detach", "--state", l.state("laptop")).refused(t, "no packets pass within 30s")
	(<-joined).refused(t, "no answer from the gateway", gatewayUnderlay4)
	l.mustBeUntouched("after a detached start that failed")
}

// stopDetached ends a daemon in the background at the end of the test, whatever has become of the test.
func stopDetached(m *machine, state string) {
	m.watched()
	m.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := api.NewClient(m.state(state)).Down(ctx); err == nil {
			m.t.Errorf("%s:%s was still running", m.Name(), state)
		}
	})
}

// addressesOf are a peer's tunnel addresses.
func addressesOf(t *testing.T, p api.Peer) []netip.Addr {
	t.Helper()
	var out []netip.Addr
	for _, text := range p.Addresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

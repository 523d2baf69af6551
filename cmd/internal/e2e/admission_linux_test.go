package e2e

import (
	"context"
	"crypto/rand"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/control/api"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

// Invites that do not admit say why, in one line, and nothing happens to the machine.
func TestInvitesThatDoNotAdmit(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	gateway := gatewayUp(g)
	invite := gateway.invite()
	member := l.up("laptop", "--name", "laptop", invite).connected()

	// Used: only by the machine that used it, where it means to reconnect.
	l.aetherd("up", "--state", l.state("second"), invite).refused(t, "invite has been used already")
	member.stop()
	member = l.up("laptop", invite).connected()
	if n := len(nodes(gateway)); n != 2 {
		t.Errorf("coming back with the same invite makes %d nodes of 2", n)
	}

	// Expired. The command line makes none that short; the gateway's own clock decides.
	short, err := gateway.api.Invite(within(t, patience), api.InviteRequest{TTLSeconds: 1})
	if err != nil {
		t.Fatal(err)
	}
	expired, cancel := context.WithDeadline(t.Context(), short.Expires.Add(10*time.Millisecond))
	<-expired.Done()
	cancel()
	l.aetherd("up", "--state", l.state("late"), short.Line).refused(t, "invite has expired")

	// Mistyped, in every way that a person does it.
	good := gateway.invite()
	for _, wrong := range []string{
		strings.Replace(good, "aether://", "aether:/", 1),
		good[:len(good)-3],
		good[:len(good)-6] + swap(good[len(good)-6:]),
		"https://example.org/",
		"aether://",
	} {
		l.aetherd("up", "--state", l.state("mistyped"), wrong).refused(t, "invite")
	}
	// The good one is not spoilt by that, and may have been copied with the space around it.
	member.stop()
	tablet := l.up("mistyped", "--name", "tablet", " "+good+" \n").connected()
	tablet.stop()

	// Foreign: of a gateway that is this one but does not know the secret.
	parsed, err := token.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	if parsed.Secret, err = token.NewSecret(rand.Reader); err != nil {
		t.Fatal(err)
	}
	foreign, err := parsed.Encode()
	if err != nil {
		t.Fatal(err)
	}
	l.aetherd("up", "--state", l.state("foreign"), foreign).refused(t, "invite is not known here")
	// A state that has joined one network joins no other.
	parsed.Gateway[0] ^= 1
	if foreign, err = parsed.Encode(); err != nil {
		t.Fatal(err)
	}
	l.aetherd("up", "--state", member.state, foreign).refused(t, "belongs to network", "--state DIR")
	g.aetherd("up", "--state", g.state("gateway"), good).refused(t, "running already")
}

// swap changes the order of two letters.
func swap(s string) string {
	for i := range len(s) - 1 {
		if s[i] != s[i+1] {
			return s[:i] + s[i+1:i+2] + s[i:i+1] + s[i+2:]
		}
	}
	return "x" + s[1:]
}

// nodes lists the nodes of a gateway's network.
func nodes(gateway *daemon) []api.Node {
	gateway.t.Helper()
	list, err := gateway.api.Nodes(within(gateway.t, patience))
	if err != nil {
		gateway.t.Fatal(err)
	}
	return list
}

// Another daemon answers at the gateway's address: an invitee is told so and gives up, a member is told so
// and waits for the real one.
func TestAnImpostorAtTheGatewaysAddress(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	gateway := gatewayUp(g)
	member := l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	invite := gateway.invite()
	member.stop()
	gateway.stop()
	impostor := networkUp(g, "impostor", testNetwork)
	l.aetherd("up", "--state", l.state("invited"), invite).refused(t, "wrong gateway id")
	l.mustBeUntouched("after a refused invite")

	member = l.up("laptop")
	member.await("certificate is from another network")
	if s := member.status(); s.State == "connected" || impostor.sessions() != 0 {
		t.Errorf("the member is %s, and the impostor has %d sessions", s.State, impostor.sessions())
	}
	impostor.stop()
	g.up("gateway").listening()
	member.connected()
}

// While a member waits for the gateway's word on its invite there is nobody to ask: status says that it is starting, and
// down stops it as soon as it can.
func TestVerbsWhileAMemberJoins(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	gateway := gatewayUp(g)
	invite := gateway.invite()
	gateway.stop()
	member := l.up("laptop", "--name", "laptop", invite)
	member.await("dialing")
	l.aetherd("status", "--state", member.state).refused(t, "aetherd is starting", member.state)

	told, ended := newOutput(), make(chan outcome, 1)
	go func() {
		ended <- l.aetherdWith(func(c *exec.Cmd) { c.Stdout = told }, "down", "--state", member.state)
	}()
	ctx := within(t, patience)
	for changed := told.watch(); len(told.lines("aetherd is starting")) == 0; changed = told.watch() {
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("down does not say that it waits")
		}
	}
	g.up("gateway").listening()
	if o := <-ended; o.code != 0 || len(told.lines("stopped; the machine is as it was")) != 1 || len(told.lines("")) != 2 {
		t.Errorf("down: exit %d, %q%s", o.code, told.lines(""), o.stderr)
	}
	if code := member.wait(); code != 0 {
		t.Errorf("the member ended with code %d", code)
	}
	l.mustBeUntouched("after down during a start")
}

// A revoked node is cut off at once and says so, and is not let in again.
func TestARevokedNodeIsCutOff(t *testing.T) {
	t.Parallel()
	gateway, member := tunnel(t)
	l := member.machine
	l.reaches(gateway.address4())
	begin := time.Now()
	if err := gateway.api.Revoke(within(t, patience), "laptop"); err != nil {
		t.Fatal(err)
	}
	gateway.await("disconnected laptop")
	t.Logf("the member was cut off after %v", time.Since(begin))
	member.refused("the gateway no longer admits this node", "new invite")
	l.mustBeUntouched("after the revocation")
	l.aetherd("up", "--state", member.state).refused(t, "the gateway no longer admits this node")
	l.mustBeUntouched("after another attempt")
	for _, p := range gateway.status().Peers {
		if p.Name == "laptop" {
			t.Errorf("the gateway's status still has the node: %+v", p)
		}
	}
	// The machine may come back as a new node.
	again := l.up("again", "--name", "laptop", gateway.invite()).connected()
	l.reaches(gateway.address4(), gateway.address6())
	// It persists: the gateway does not forget.
	gateway.stop()
	gateway.machine.up("gateway").listening()
	l.eventuallyReaches(netip.MustParseAddr("10.77.0.1"))
	again.stop()
	l.aetherd("up", "--state", member.state).refused(t, "the gateway no longer admits this node")
}

// A network without a free address says so.
func TestAnExhaustedPoolOfAddresses(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	gateway := networkUp(g, "gateway", "10.77.0.0/29")
	const members = 5 // of 8 addresses the first and last are none, and one is the gateway's
	invite := gateway.invite("--uses", "7")
	for i := range members {
		name := "m" + text(uint32(i))
		member := l.up(name, "--name", name, invite).connected()
		l.reaches(gateway.address4())
		member.stop()
	}
	l.aetherd("up", "--state", l.state("last"), invite).refused(t, "address pool exhausted", "10.77.0.0/29")
	l.mustBeUntouched("after a refused invite")
	// Revoking a node that is gone makes room, and the invite was not used up by the refusal.
	gateway.verb("nodes", "revoke", "m3")
	last := l.up("last", "--name", "last", invite).connected()
	if a := last.address4(); a != netip.MustParseAddr("10.77.0.5") {
		t.Errorf("the last member has %s, want the address of the revoked one", a)
	}
	l.reaches(gateway.address4())
}

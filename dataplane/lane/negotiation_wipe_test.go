package lane

import (
	"errors"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// mustBeWiped checks that no key comes from chains any more.
func mustBeWiped(t *testing.T, chains ...*keyschedule.Chain) {
	t.Helper()
	for i, c := range chains {
		if _, err := c.PacketKey(0, keyschedule.Client, testConfig(keyed(1)).Suites[0]); !errors.Is(err, keyschedule.ErrWiped) {
			t.Errorf("chain %d gives keys: %v", i, err)
		}
	}
}

// TestRatchetWipesTheEpochBefore: what is stolen later opens nothing that was sent earlier.
func TestRatchetWipesTheEpochBefore(t *testing.T) {
	p := newEnds(t)
	both := []*Negotiation{p.client, p.server}
	old := []*keyschedule.Chain{p.client.epochs.current.chain, p.server.epochs.current.chain}
	out := exchange(t, p.server, p.ss, p.request(), p.now)
	exchange(t, p.client, p.cs, message(t, out, KindRatchetAnswer), p.now)
	p.server.Opened(1, p.now)
	p.client.Opened(1, p.now)
	mustBeWiped(t, old...)
	for _, n := range both {
		if e := n.epochs.previous; e == nil || e.seal != nil {
			t.Errorf("the sealing key of the epoch before is held: %+v", e)
		}
		current := n.epochs.current.chain
		n.Drop(ReasonDown, p.now)
		mustBeWiped(t, current)
	}
}

// TestAdoptionWipesWhatTheOtherLacks: the epoch that only one side has is not gone on with.
func TestAdoptionWipesWhatTheOtherLacks(t *testing.T) {
	p := newEnds(t)
	exchange(t, p.server, p.ss, p.request(), p.now)
	lost := p.server.epochs.next.chain
	p.client.SessionEnded(p.cs, false, p.now)
	cs, ss := sessionPair("two", keyschedule.Client)
	out := exchange(t, p.server, ss, message(t, must(p.client.Resume(cs, p.now)), KindAdoptRequest), p.now)
	wantEvents(t, out, EventAdopted, EventWipe, EventSeal)
	mustBeWiped(t, lost)
}

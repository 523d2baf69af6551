package control

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// TestLaneUnboundDoesNotLastForEver: without a session it seals for 180 s and opens for 183, then nothing is left.
func TestLaneUnboundDoesNotLastForEver(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	defer m.dial.shut()()
	m.session().close(masque.CodeRestart, "lost")
	await(t, "the loss", func() bool {
		_, ok := g.laneIs(m.key.ID(), false)
		return ok
	})
	g.freeze()
	g.ahead.Add(int64(lane.SealFor - time.Minute))
	g.lanes.tick()
	if !g.carries(m.key.ID()) {
		t.Error("it is over too early")
	}
	g.ahead.Add(int64(time.Minute))
	await(t, "the end of sealing", func() bool { return !g.carries(m.key.ID()) })
	if _, ok := g.laneIs(m.key.ID(), false); !ok {
		t.Error("it does not open for longer than it seals")
	}
	g.ahead.Add(int64(lane.KeepFor))
	await(t, "the end", func() bool { return g.partyCount() == 0 })
}

func (n *laneNode) partyCount() int {
	n.lanes.mu.Lock()
	defer n.lanes.mu.Unlock()
	return len(n.lanes.parties)
}

// TestLaneOfALostSessionEndsWithThePeer: a lane that is bound to no session, because the member has lost one and has gone
// down before the next could adopt it.
func TestLaneOfALostSessionEndsWithThePeer(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	release := m.dial.shut()
	m.session().close(masque.CodeRestart, "lost")
	await(t, "the loss", func() bool {
		_, ok := g.laneIs(m.key.ID(), false)
		return ok
	})
	m.lanes.mu.Lock()
	m.lanes.closed = true // nothing is adopted
	m.lanes.mu.Unlock()
	release()
	m.events.await(t, EventConnected, 2)
	if _, ok := g.laneIs(m.key.ID(), false); !ok {
		t.Fatal("the lane is gone too early")
	}
	m.leave()
	await(t, "the end of the lane", func() bool { return g.partyCount() == 0 && !g.carries(m.key.ID()) })
}

// TestGatewayStartsAnew: it does not know the lane any more, so another one is made.
func TestGatewayStartsAnew(t *testing.T) {
	for name, end := range map[string]func(*laneGateway){
		"down": (*laneGateway).down, "crash": (*laneGateway).crash,
	} {
		t.Run(name, func(t *testing.T) {
			g := newLaneGateway(t)
			m := g.newLaneMember(t, "laptop")
			id := g.joined(m)
			end(g)
			if name == "down" {
				await(t, "the end of the lane", func() bool { return !m.carries(g.key.ID()) })
			} else {
				// It would notice by the silence; this is about what follows.
				m.session().close(masque.CodeRestart, "lost")
				await(t, "the loss", func() bool {
					_, ok := m.laneIs(g.key.ID(), false)
					return ok
				})
			}
			g.up(g.address, t)
			if g.joined(m) == id {
				t.Error("it is the same lane")
			}
			g.flowUp(m).passes(20)
			g.flowDown(m).passes(20)
			g.onlyOne(m)
		})
	}
}

// onlyOne waits until no older lane is left.
func (g *laneGateway) onlyOne(m *laneMember) {
	m.t.Helper()
	await(m.t, "one lane at each end", func() bool {
		count := 0
		g.party(m.key.ID(), func(p *laneParty) { count += len(p.states()) })
		m.party(g.key.ID(), func(p *laneParty) { count += len(p.states()) })
		return count == 2
	})
}

// TestAdoptionRefused: the gateway has the lane but not its keys of before. The old lane carries on until the new one does.
func TestAdoptionRefused(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	id := g.joined(m)
	release := m.dial.shut()
	m.session().close(masque.CodeRestart, "lost")
	await(t, "the loss", func() bool {
		_, at := g.laneIs(m.key.ID(), false)
		_, there := m.laneIs(g.key.ID(), false)
		return at && there
	})
	// An epoch that may not seal any more is none to go on with.
	g.freeze()
	g.ahead.Add(int64(lane.SealFor))
	up := g.flowUp(m)
	up.passes(20)
	release()
	for m.events.count(EventConnected) < 2 {
		up.passes(1)
	}
	if g.joined(m) == id {
		t.Error("it is the same lane")
	}
	g.onlyOne(m)
	up.passes(20)
	g.flowDown(m).passes(20)
}

// TestOrderlyEndEndsTheLane at both ends, at once.
func TestOrderlyEndEndsTheLane(t *testing.T) {
	t.Run("of the member", func(t *testing.T) {
		g := newLaneGateway(t)
		m := g.newLaneMember(t, "laptop")
		m.leave()
		await(t, "the end", func() bool { return g.partyCount() == 0 && !g.carries(m.key.ID()) })
		if m.partyCount() != 0 || m.carries(g.key.ID()) {
			t.Error("the member keeps the lane")
		}
		if n := g.laneNode.events.count(EventDisconnected); n > 1 {
			t.Errorf("disconnected %d times", n)
		}
	})
	t.Run("of the gateway", func(t *testing.T) {
		g := newLaneGateway(t)
		m := g.newLaneMember(t, "laptop")
		defer m.dial.shut()()
		g.down()
		await(t, "the end", func() bool { return m.partyCount() == 0 && !m.carries(g.key.ID()) })
	})
	t.Run("by FIN", func(t *testing.T) {
		g := newLaneGateway(t)
		m := g.newLaneMember(t, "laptop")
		m.leave()
		await(t, "the end of its lane", func() bool { return g.partyCount() == 0 })
		l := dialOther(t, g, m)
		done := make(chan error, 1)
		go func() { done <- l.session.Run(t.Context(), func(masque.Event) {}) }()
		if err := l.session.SendPrivate(masque.CapsuleLane, newOffer(t)); err != nil {
			t.Fatal(err)
		}
		await(t, "another lane", func() bool {
			_, ok := g.laneIs(m.key.ID(), true)
			return ok
		})
		if err := l.session.Close(); err != nil {
			t.Fatal(err)
		}
		await(t, "the end", func() bool { return g.partyCount() == 0 })
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("of the lanes", func(t *testing.T) {
		g := newLaneGateway(t)
		m := g.newLaneMember(t, "laptop")
		m.end()
		<-m.lanesRun
		if m.carries(g.key.ID()) {
			t.Error("the member keeps the lane")
		}
		await(t, "the end", func() bool { return !g.carries(m.key.ID()) })
		g.flowUp(m).passes(5) // by the session
		if err := m.lanes.offer(m.member.current.lanes); err != nil {
			t.Error(err)
		}
		m.party(g.key.ID(), func(p *laneParty) {
			if p.current != nil {
				t.Error("a lane is made although the lanes are over")
			}
		})
	})
}

// TestDownClosesTheConnectionFirst: a session that is cancelled before would look lost, and its lane would live on.
func TestDownClosesTheConnectionFirst(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	l := dialOther(t, g, m)
	ctx, down := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() {
		defer close(served)
		m.member.serve(ctx, l)
	}()
	down()
	<-served
	if code := closedBy(t, l.conn); code != quic.ApplicationErrorCode(http3.ErrCodeNoError) {
		t.Errorf("closed with %#x", code)
	}
}

// TestRevocationEndsTheLane within the call, and no message of the revoked node makes another one.
func TestRevocationEndsTheLane(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	var session *laneSession
	g.party(m.key.ID(), func(p *laneParty) {
		for _, s := range p.live {
			session = s
		}
	})
	offer := newOffer(t)
	if err := g.gateway.Revoke("laptop"); err != nil {
		t.Fatal(err)
	}
	if g.carries(m.key.ID()) || g.partyCount() != 0 {
		t.Error("the lane is still there")
	}
	if err := g.lanes.message(session, offer); err != nil {
		t.Error(err)
	}
	if session.party.current != nil {
		t.Error("the revoked node has another lane")
	}
	if err := <-m.ended; !errors.Is(err, ErrRefused) {
		t.Errorf("the member ended with %v", err)
	}
}

// TestDropIsForGood: until its sessions have ended too, the peer makes no other lane over them.
func TestDropIsForGood(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	var session *laneSession
	g.party(m.key.ID(), func(p *laneParty) {
		for _, s := range p.live {
			session = s
		}
	})
	g.lanes.drop(m.key.ID(), lane.ReasonRevoked)
	if g.carries(m.key.ID()) || g.partyCount() != 0 {
		t.Error("the lane is still there")
	}
	if err := g.lanes.message(session, newOffer(t)); err != nil {
		t.Error(err)
	}
	if session.party.current != nil {
		t.Error("there is another lane")
	}
}

// TestLaneIsOfferedAgain over a session that goes on, some time after a lane ended for a reason that may pass, and not after
// one that stays.
func TestLaneIsOfferedAgain(t *testing.T) {
	for reason, again := range map[lane.Reason]bool{
		lane.ReasonInternal: true, lane.ReasonExpired: true, lane.ReasonPolicy: false, lane.ReasonDown: false,
	} {
		t.Run(reason.String(), func(t *testing.T) {
			g := newLaneGateway(t)
			m := g.newLaneMember(t, "laptop")
			first := g.joined(m)
			g.party(m.key.ID(), func(p *laneParty) { p.close(reason) })
			await(t, "the end", func() bool {
				over := false
				m.party(g.key.ID(), func(p *laneParty) { over = p.current == nil })
				return over && !m.carries(g.key.ID())
			})
			up := g.flowUp(m)
			up.passes(5) // by the session
			m.lanes.tick()
			if _, ok := m.laneIs(g.key.ID(), true); ok {
				t.Error("a lane is offered at once")
			}
			m.ahead.Add(int64(laneRetryAfter))
			m.lanes.tick()
			if again {
				if g.joined(m) == first {
					t.Error("it is the same lane")
				}
			} else {
				m.party(g.key.ID(), func(p *laneParty) {
					if p.current != nil {
						t.Error("a lane is offered although it was not wanted")
					}
				})
			}
			up.passes(5)
			if n := m.events.count(EventConnected); n != 1 {
				t.Errorf("%d sessions", n)
			}
		})
	}
}

// TestLaneForgottenByThePeer: who hears of it, by a stateless reset, has a new one made at once over the same session.
func TestLaneForgottenByThePeer(t *testing.T) {
	for name, hears := range map[string]func(*laneGateway, *laneMember) *laneNode{
		"gateway": func(g *laneGateway, _ *laneMember) *laneNode { return g.laneNode },
		"member":  func(_ *laneGateway, m *laneMember) *laneNode { return m.laneNode },
	} {
		t.Run(name, func(t *testing.T) {
			g := newLaneGateway(t)
			m := g.newLaneMember(t, "laptop")
			id, session := g.joined(m), m.session()
			g.freeze()
			m.freeze()
			n, peer := hears(g, m), m.key.ID()
			if name == "member" {
				peer = g.key.ID()
			}
			n.party(peer, func(p *laneParty) { p.failed(p.current, lane.ReasonReset, n.lanes.cfg.Nanos()) })
			if other := g.joined(m); other == id {
				t.Error("it is the same lane")
			}
			g.onlyOne(m)
			g.flowUp(m).passes(5)
			g.flowDown(m).passes(5)
			if m.session() != session {
				t.Error("the session was made anew too")
			}
		})
	}
}

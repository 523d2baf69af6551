package control

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// TestLaneIsMade: offer and accept are through, and packets of both directions go over the lane.
func TestLaneIsMade(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	up, down := g.flowUp(m), g.flowDown(m)
	before := func(n *laneNode, peer *laneNode) (sealed, opened uint64) {
		id := g.key.ID()
		if n == g.laneNode {
			id = m.key.ID()
		}
		n.party(id, func(p *laneParty) { sealed, opened = p.current.progress() })
		return sealed, opened
	}
	const packets = 50
	sealed, opened := before(m.laneNode, g.laneNode)
	up.passes(packets)
	down.passes(packets)
	await(t, "the counters", func() bool {
		s, o := before(m.laneNode, g.laneNode)
		return s >= sealed+packets && o >= opened+packets
	})
	if n := m.events.count(EventConnected); n != 1 {
		t.Errorf("%d sessions", n)
	}
	g.quiet()
	m.quiet()
}

// TestLaneRatchets by time and by packets, and packets go on passing.
func TestLaneRatchets(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	id := g.joined(m)
	up, down := g.flowUp(m), g.flowDown(m)
	both := func(epoch uint32) {
		t.Helper()
		await(t, "the next epoch at both ends", func() bool {
			return g.epoch(m.key.ID()) == epoch && m.epoch(g.key.ID()) == epoch
		})
		up.passes(20)
		down.passes(20)
	}
	both(0)
	ahead := func(d time.Duration) {
		m.ahead.Add(int64(d))
		g.ahead.Add(int64(d))
	}
	ahead(lane.RatchetAfter)
	both(1)
	ahead(lane.RatchetAfter)
	both(2)
	const half = 1 << 25
	m.party(g.key.ID(), func(p *laneParty) {
		sealed, opened := p.current.progress()
		p.apply(p.current, p.current.n.Progress(sealed, opened+half-100, m.lanes.cfg.Nanos()))
	})
	ahead(lane.KeepFor) // the epoch before has to be over
	up.passes(200)
	if e := m.epoch(g.key.ID()); e != 2 {
		t.Errorf("epoch %d before half the packets are used", e)
	}
	m.party(g.key.ID(), func(p *laneParty) {
		p.apply(p.current, p.current.n.Progress(0, 2*half, m.lanes.cfg.Nanos()))
	})
	both(3)
	if g.joined(m) != id {
		t.Error("it is another lane")
	}
	g.quiet()
	m.quiet()
}

// TestLaneOutlivesItsSession: while a session is made anew no packet is lost, the new one adopts the lane, and a ratchet
// follows.
func TestLaneOutlivesItsSession(t *testing.T) {
	for name, kill := range map[string]func(g *laneGateway, m *laneMember){
		"by the member": func(_ *laneGateway, m *laneMember) { m.session().close(masque.CodeRestart, "lost") },
		"by the gateway": func(g *laneGateway, _ *laneMember) {
			for _, l := range g.gateway.snapshotLinks() {
				l.close(masque.CodeRestart, "lost")
			}
		},
		"of a failed carrier": func(_ *laneGateway, m *laneMember) { m.session().cancel(errors.New("cannot carry")) },
		"of a failed carrier of the gateway": func(g *laneGateway, _ *laneMember) {
			for _, l := range g.gateway.snapshotLinks() {
				l.cancel(errors.New("cannot carry"))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newLaneGateway(t)
			m := g.newLaneMember(t, "laptop")
			id := g.joined(m)
			up, down := g.flowUp(m), g.flowDown(m)
			release := m.dial.shut()
			kill(g, m)
			await(t, "the loss at both ends", func() bool {
				_, at := g.laneIs(m.key.ID(), false)
				_, there := m.laneIs(g.key.ID(), false)
				return at && there
			})
			up.passes(100)
			down.passes(100)
			release()
			for m.events.count(EventConnected) < 2 {
				up.passes(1)
				down.passes(1)
			}
			if again := g.joined(m); again != id {
				t.Error("it is another lane")
			}
			await(t, "the ratchet", func() bool { return g.epoch(m.key.ID()) == 1 && m.epoch(g.key.ID()) == 1 })
			up.passes(100)
			down.passes(100)
			g.quiet()
			m.quiet()
		})
	}
}

// TestLaneMovesToTheNewerSession: a session that is made before the old one ends takes its lane over.
func TestLaneMovesToTheNewerSession(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	id := g.joined(m)
	up, down := g.flowUp(m), g.flowDown(m)
	for n := 2; n < 5; n++ {
		m.member.tell(memberMessage{suspect: true, link: m.member.current})
		for m.events.count(EventConnected) < n {
			up.passes(1)
			down.passes(1)
		}
		if again := g.joined(m); again != id {
			t.Error("it is another lane")
		}
		await(t, "the ratchet", func() bool { return m.epoch(g.key.ID()) == uint32(n-1) })
		up.passes(10)
		m.ahead.Add(int64(lane.KeepFor)) // or the next one waits for the end of the epoch before
	}
	g.quiet()
	m.quiet()
}

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

// newOffer makes one that is as good as any.
func newOffer(t *testing.T) []byte {
	t.Helper()
	n, err := lane.NewClient(lane.Config{
		Local: lane.NodeID{1}, MaxPacketBytes: lanePacketBytes, Suites: laneSuites,
		Issue: func() (id lane.ConnectionID, token lane.ResetToken) {
			binary.BigEndian.PutUint64(id[:], offerIDs.Add(1))
			return id, token
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := n.Start(&lane.Session{Role: keyschedule.Client}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return out.Messages[0].Payload
}

// TestMalformedMessageEndsTheSession, and with it the lane, at whichever end it arrives.
func TestMalformedMessageEndsTheSession(t *testing.T) {
	for name, payload := range map[string][]byte{
		"nothing":     {},
		"short offer": {byte(lane.KindOffer), 0, 1, 2, 3},
		"short close": append([]byte{byte(lane.KindClose), 0}, make([]byte, 16)...),
		"too long":    append([]byte{byte(lane.KindClose), 0}, make([]byte, 3000)...),
	} {
		t.Run(name, func(t *testing.T) {
			g := newLaneGateway(t)
			m := g.newLaneMember(t, "laptop")
			first := g.joined(m)
			for n, session := range []*link{m.session(), &g.gateway.snapshotLinks()[0].link} {
				if n == 1 {
					session = &g.gateway.snapshotLinks()[0].link
				}
				if err := session.session.SendPrivate(masque.CapsuleLane, payload); err != nil {
					t.Fatal(err)
				}
				code := closedBy(t, session.conn)
				if code != quic.ApplicationErrorCode(http3.ErrCodeMessageError) {
					t.Errorf("closed with %#x", code)
				}
				m.events.await(t, EventConnected, n+2)
				id := g.joined(m)
				if id == first {
					t.Error("the lane goes on")
				}
				first = id
			}
		})
	}
}

// TestUnknownMessagesAreIgnored: kinds of a later version, and those about lanes that are not there.
func TestUnknownMessagesAreIgnored(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	id := g.joined(m)
	for _, payload := range [][]byte{
		append([]byte{99, 0}, make([]byte, 500)...),
		(&lane.Close{Lane: lane.ID{7}}).Append(nil),
		(&lane.Refusal{Offer: lane.OfferID{7}}).Append(nil),
		(&lane.AdoptRequest{Lane: lane.ID{7}, Attempt: 1, Proofs: make([]lane.Proof, 1)}).Append(nil),
		(&lane.AdoptAnswer{Lane: id, Status: lane.AdoptFailed, Attempt: 1}).Append(nil),
	} {
		for _, l := range []*link{m.session(), &g.gateway.snapshotLinks()[0].link} {
			if err := l.session.SendPrivate(masque.CapsuleLane, payload); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, l := range []*link{m.session(), &g.gateway.snapshotLinks()[0].link} {
		if _, err := l.session.Ping(t.Context(), 0); err != nil { // all of it has been read
			t.Fatal(err)
		}
	}
	if g.joined(m) != id || m.events.count(EventConnected) != 1 {
		t.Error("something has changed")
	}
	g.flowUp(m).passes(5)
	g.quiet()
	m.quiet()
}

// TestOffersOfATokenAreIgnored: a client that is authenticated by token alone has no lanes.
func TestOffersOfATokenAreIgnored(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	links := g.gateway.snapshotLinks()
	byToken := &gatewayLink{link: links[0].link, node: links[0].node, byToken: true}
	g.gateway.laneMessage(byToken, newOffer(t))
	g.gateway.laneMessage(byToken, nil)
	if byToken.conn.Context().Err() != nil {
		t.Error("the session was ended")
	}
	g.onlyOne(m)
}

// TestFloodOfLaneOffers: however many a member makes there are two lanes at most, the one that carries packets stays, and
// not every offer costs a key encapsulation.
func TestFloodOfLaneOffers(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	id := g.joined(m)
	var session *laneSession
	g.party(m.key.ID(), func(p *laneParty) {
		for _, s := range p.live {
			session = s
		}
	})
	const offers = 200
	made := map[lane.ID]bool{}
	for range offers {
		if err := g.lanes.message(session, newOffer(t)); err != nil {
			t.Fatal(err)
		}
		g.party(m.key.ID(), func(p *laneParty) {
			states := p.states()
			if len(states) > 2 {
				t.Fatalf("%d lanes", len(states))
			}
			for _, c := range states {
				name, _ := c.n.ID()
				made[name] = true
			}
			if oldest, _ := states[len(states)-1].n.ID(); oldest != id {
				t.Fatal("the lane that carries packets was dropped")
			}
		})
	}
	if most := 2 * laneOfferBurst; len(made) > most {
		t.Errorf("%d offers have made %d lanes, want at most %d", offers, len(made), most)
	}
	g.flowUp(m).passes(10)
	g.flowDown(m).passes(10)
	g.ahead.Add(int64(time.Minute))
	if err := g.lanes.message(session, newOffer(t)); err != nil {
		t.Fatal(err)
	}
	g.party(m.key.ID(), func(p *laneParty) {
		if name, _ := p.current.n.ID(); made[name] {
			t.Error("after a minute no further lane is made")
		}
	})
}

// TestPeerThatDoesNotRead: its session ends instead of leaving a lane without answers.
func TestPeerThatDoesNotRead(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	m.leave()
	dialOther(t, g, m) // nothing reads it
	var session *laneSession
	await(t, "the session", func() bool {
		g.party(m.key.ID(), func(p *laneParty) {
			for _, s := range p.live {
				session = s
			}
		})
		return session != nil
	})
	for until := time.Now().Add(deadline); session.link.ctx.Err() == nil; {
		request := &lane.AdoptRequest{Lane: lane.ID{7}, Attempt: 1, Proofs: make([]lane.Proof, 1)}
		if err := g.lanes.message(session, request.Append(nil)); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(until) {
			t.Fatal("the session goes on")
		}
	}
	if cause := context.Cause(session.link.ctx); !errors.Is(cause, errUnread) {
		t.Errorf("ended by %v", cause)
	}
	g.quiet()
}

// dialOther makes a session in the name of the member, which has left, for the test to do with as it likes.
func dialOther(t *testing.T, g *laneGateway, m *laneMember) *memberLink {
	t.Helper()
	dialer := NewMember(MemberConfig{
		Key: m.key, Membership: m.membership, Transport: m.transport, Resolver: fakeResolver{}, Now: g.now,
	})
	l, err := dialer.dial(t.Context(), m.membership)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.close(0, "") })
	return l
}

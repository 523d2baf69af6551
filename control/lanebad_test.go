package control

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/crypto/token"
	"github.com/aethertunnel/aethertunnel/dataplane"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// newOffer makes one that is as good as any.
func newOffer(t *testing.T) []byte {
	t.Helper()
	n, err := lane.NewClient(lane.Config{
		Local: lane.NodeID{1}, MaxPacketBytes: lanePacketBytes, Suites: []aead.Suite{aead.AES256GCM},
		Issue: func() (id lane.ConnectionID, token lane.ResetToken) {
			_, _ = rand.Read(id[:]) // never fails
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
				mustEndWith(t, session.conn, quic.ApplicationErrorCode(http3.ErrCodeMessageError))
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

// mustEndWith waits for the end of a connection, which may show as a reset where the machine is busy.
func mustEndWith(t *testing.T, c *quic.Conn, code quic.ApplicationErrorCode) {
	t.Helper()
	select {
	case <-c.Context().Done():
	case <-time.After(deadline):
		t.Fatal("the connection goes on")
	}
	cause := context.Cause(c.Context())
	if errors.As(cause, new(*quic.StatelessResetError)) {
		return
	}
	if closed, ok := errors.AsType[*quic.ApplicationError](cause); !ok || closed.ErrorCode != code {
		t.Errorf("ended with %v, want %#x", cause, code)
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
	secret, _, err := g.authority.Invite(admit.InviteOptions{Uses: 1, TTL: time.Hour, Stock: true})
	if err != nil {
		t.Fatal(err)
	}
	bearer, err := token.Bearer(secret)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := newTransport(t).Dial(t.Context(), mustUDP(t, g.address),
		masque.TLSConfig(&tls.Config{InsecureSkipVerify: true}, masque.RequireHybrid), masque.QUICConfig(1320))
	if err != nil {
		t.Fatal(err)
	}
	session, _, err := masque.Dial(t.Context(), conn, masque.Request{
		Authority: g.address, Header: http.Header{"Authorization": {"Bearer " + bearer}},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- session.Run(t.Context(), func(e masque.Event) {
			if c, ok := e.(masque.PrivateCapsule); ok && c.Type == masque.CapsuleLane {
				t.Errorf("answered by %x", c.Payload)
			}
		})
	}()
	for _, payload := range [][]byte{newOffer(t), {}} {
		if err := session.SendPrivate(masque.CapsuleLane, payload); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := session.Ping(t.Context(), 0); err != nil { // both have been read, and answers would have come
		t.Error(err)
	}
	if g.partyCount() != 0 {
		t.Error("there is something about lanes")
	}
	if err := conn.CloseWithError(0, ""); err != nil {
		t.Error(err)
	}
	<-done
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
	const offers = 50 // fewer than answers that may wait to be read
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

// refusingDataplane makes no lanes.
type refusingDataplane struct{ refusals atomic.Int64 }

var errNoLanes = errors.New("no lanes")

func (d *refusingDataplane) NewLane(dataplane.LaneConfig) (*dataplane.Lane, error) {
	d.refusals.Add(1)
	return nil, errNoLanes
}

// TestDataplaneWithoutLanes: the peer is told that there is none, packets go over the session, and it is tried again later.
func TestDataplaneWithoutLanes(t *testing.T) {
	for name, of := range map[string]func(g *laneGateway, m *laneMember) *laneNode{
		"gateway": func(g *laneGateway, _ *laneMember) *laneNode { return g.laneNode },
		"member":  func(_ *laneGateway, m *laneMember) *laneNode { return m.laneNode },
	} {
		t.Run(name, func(t *testing.T) {
			g := newLaneGateway(t)
			m := g.newLaneMember(t, "laptop")
			none := of(g, m)
			data := &refusingDataplane{}
			none.lanes.mu.Lock()
			before := none.lanes.cfg.Dataplane
			none.lanes.cfg.Dataplane = data
			none.lanes.mu.Unlock()
			restore := func() {
				none.lanes.mu.Lock()
				none.lanes.cfg.Dataplane = before
				none.lanes.mu.Unlock()
			}
			g.party(m.key.ID(), func(p *laneParty) { p.close(lane.ReasonInternal) })
			nothing := func() bool {
				over := true
				g.party(m.key.ID(), func(p *laneParty) { over = over && p.current == nil })
				m.party(g.key.ID(), func(p *laneParty) { over = over && p.current == nil })
				return over
			}
			await(t, "the end of the first lane", nothing)
			m.ahead.Add(int64(laneRetryAfter))
			await(t, "an attempt", func() bool { return data.refusals.Load() == 1 && nothing() })
			none.mu.Lock()
			if len(none.notices) != 1 || !errors.Is(none.notices[0], errNoLanes) {
				t.Errorf("notices: %v", none.notices)
			}
			none.mu.Unlock()
			g.flowUp(m).passes(5)
			restore()
			m.ahead.Add(int64(laneRetryAfter))
			g.joined(m)
		})
	}
}

// TestPeerWithoutLanes: an offer that nobody answers is forgotten, and not repeated for long.
func TestPeerWithoutLanes(t *testing.T) {
	g := newLaneGateway(t)
	g.gateway.cfg.Lanes = nil
	m := &laneMember{key: newKey(t)}
	membership, err := g.join(t, m.key, g.invite(t, admit.InviteOptions{}), "laptop")
	if err != nil {
		t.Fatal(err)
	}
	m.membership = membership
	g.start(t, m)
	m.events.await(t, EventConnected, 1)
	await(t, "the offer", func() bool {
		offered := false
		m.party(g.key.ID(), func(p *laneParty) { offered = p.current != nil })
		return offered
	})
	m.ahead.Add(int64(lane.AnswerWithin))
	gone := func() bool {
		over := false
		m.party(g.key.ID(), func(p *laneParty) { over = p.current == nil })
		return over
	}
	await(t, "the end of the offer", gone)
	m.freeze()
	m.ahead.Add(int64(laneRetrySilent) - int64(time.Minute))
	m.lanes.tick()
	if !gone() {
		t.Error("it is offered again soon")
	}
	m.ahead.Add(int64(time.Minute))
	await(t, "the next offer", func() bool { return !gone() })
	g.flowUp(m).passes(5)
	m.quiet()
}

// TestOfferOverAnOlderSession: what a client said on a session that it has left must not undo the lane of the next.
func TestOfferOverAnOlderSession(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	id := g.joined(m)
	later := &laneSession{}
	g.party(m.key.ID(), func(p *laneParty) {
		p.begun++
		later.party, later.serial = p, p.begun
		p.live[&later.Session] = later
	})
	m.party(g.key.ID(), func(p *laneParty) {
		if err := p.offerNew(); err != nil {
			t.Error(err)
		}
	})
	await(t, "the refusal", func() bool {
		refused := false
		m.party(g.key.ID(), func(p *laneParty) { refused = p.current == nil && p.older != nil })
		return refused
	})
	if got, ok := g.laneIs(m.key.ID(), true); !ok || got != id {
		t.Error("the gateway has left the lane")
	}
	g.flowUp(m).passes(5)
	g.party(m.key.ID(), func(p *laneParty) { delete(p.live, &later.Session) })
}

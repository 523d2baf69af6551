package control

import (
	"errors"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/control/masque"
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

// TestLaneProgressOnlyGrows, whichever lanes end: who watches it takes every change for a sign of life.
func TestLaneProgressOnlyGrows(t *testing.T) {
	g := newLaneGateway(t)
	m := g.newLaneMember(t, "laptop")
	g.flowUp(m).passes(50)
	g.flowDown(m).passes(50)
	s := m.member.current.lanes
	await(t, "the counters", func() bool {
		sealed, opened := m.lanes.progress(s)
		return sealed > 50 && opened > 50
	})
	sealed, opened := m.lanes.progress(s)
	m.party(g.key.ID(), func(p *laneParty) { p.close(lane.ReasonDown) })
	if after, received := m.lanes.progress(s); after < sealed || received < opened {
		t.Errorf("sealed %d and opened %d, before %d and %d", after, received, sealed, opened)
	}
}

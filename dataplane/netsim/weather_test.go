package netsim

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

const (
	weatherNanos = second / 2
	// calmNanos is how long a network without faults may take until everything is right: longer than a lane waits
	// before it is offered again, and than a suspect one rests.
	calmNanos   = 75 * second
	settleTries = 10
)

// weather breaks things.
func (w *world) weather() {
	w.net.After(weatherNanos, w.weather)
	if w.calm {
		w.mend()
		return
	}
	for _, nd := range w.nodes[1:] {
		w.breakSession(nd)
		if w.happens(w.style.ratchets, weatherNanos) {
			w.forceRatchet(nd)
		}
		if w.happens(w.style.moves, weatherNanos) {
			nd.move()
		}
	}
	nd := w.nodes[w.rng.IntN(len(w.nodes))]
	if w.happens(w.style.pathChanges, weatherNanos) {
		nd.changeLink()
	}
	if w.happens(w.style.amnesia, weatherNanos) {
		nd.forgetAll()
	}
	if w.style.stallNanos > 0 && w.rng.IntN(20) == 0 {
		nd.stalled = w.net.Nanos() + w.between(0, w.style.stallNanos)
	}
	for w.happens(w.style.attacks, weatherNanos) {
		w.net.After(w.between(0, weatherNanos), w.attack)
		if w.rng.IntN(2) == 0 {
			break
		}
	}
}

// breakSession ends a member's session now and then; the other end learns of it later, and somebody dials again.
func (w *world) breakSession(nd *node) {
	if !w.happens(w.style.breaks, weatherNanos) {
		return
	}
	s := w.newest(nd)
	if s == nil || !s.up[0] && !s.up[1] {
		return
	}
	w.breakOff(nd, s, w.rng.Float64() < w.style.orderly)
}

// breakOff ends a member's session at one end, and later at the other.
func (w *world) breakOff(nd *node, s *session, orderly bool) {
	first := w.rng.IntN(2)
	s.finish(s.nodes[first], orderly)
	s.given = true
	late := w.style.knowsEndLate
	if orderly {
		late = second
	}
	known := w.between(0, late)
	w.net.After(known, func() { s.finish(s.nodes[1-first], orderly) })
	dialer, server := nd, w.nodes[0]
	if w.style.bothDial && nd.nat == nil && w.rng.IntN(2) == 0 {
		dialer, server = server, dialer
	}
	w.net.After(known+w.between(0, w.style.redialNanos), func() { w.dial(dialer, server) })
}

// forceRatchet makes the session's client believe that its key has sealed half of what it may.
func (w *world) forceRatchet(nd *node) {
	for _, p := range []*party{nd.parties[0], w.nodes[0].parties[nd.index]} {
		if p.current != nil {
			p.current.bias += forced
		}
	}
}

// move gives a member another address, or another port.
func (nd *node) move() {
	nd.homes++
	w := nd.w
	switch {
	case nd.nat == nil:
		nd.addr = w.address(10+nd.index, nd.homes)
		w.must(nd.host.Move(nd.addr))
		if s := w.newest(nd); s != nil && s.nodes[1] == nd {
			w.breakOff(nd, s, false) // its client goes on to send to where the server was
		}
	case w.rng.IntN(2) == 0:
		nd.nat.Rebind()
	default:
		w.must(nd.nat.Move(w.address(20+nd.index, nd.homes)))
	}
	w.logf("node %d has moved", nd.index)
}

// changeLink makes a node's link another one.
func (nd *node) changeLink() {
	w := nd.w
	c := w.linkOf(nd)
	c.DelayNanos = w.between(c.DelayNanos/2, 3*c.DelayNanos)
	up, down := c, c
	if !w.style.lossless {
		up.Loss, down.Loss = w.drawLoss(), w.drawLoss()
		if w.style.mtuMin > 0 {
			up.MTUBytes = int(w.between(int64(max(w.style.mtuMin, w.minMTUBytes())), 1500))
			down.MTUBytes = int(w.between(int64(max(w.style.mtuMin, w.minMTUBytes())), 1500))
		}
		if w.style.deadNanos > 0 && w.rng.IntN(3) == 0 {
			which := w.rng.IntN(3)
			up.Dead, down.Dead = which != 1, which != 2
			w.net.After(w.between(0, w.style.deadNanos), func() {
				if up, down := nd.host.Up(), nd.host.Down(); !w.calm {
					up.Dead, down.Dead = false, false
					nd.host.SetLink(up, down)
				}
			})
		}
	}
	w.logf("node %d: link up %+v, down %+v", nd.index, up, down)
	nd.host.SetLink(up, down)
	if w.style.localMTU {
		nd.host.SetInterfaceBytes(int(w.between(1300, 1500)))
	}
}

func (w *world) drawLoss() float64 {
	return [...]float64{0, 0, 0.01, 0.05, 0.2, 0.5}[w.rng.IntN(6)]
}

// forgetAll is what a node that has been restarted does.
func (nd *node) forgetAll() {
	nd.w.logf("node %d forgets everything", nd.index)
	for _, s := range nd.w.sessions {
		if (s.nodes[0] == nd || s.nodes[1] == nd) && s.up[s.end(nd)] {
			s.given = true
			s.finish(nd, false)
			nd.w.net.After(nd.w.between(0, nd.w.style.knowsEndLate), func() { s.finish(s.peer(nd), false) })
		}
	}
	for _, p := range nd.parties {
		if p == nil {
			continue
		}
		for _, c := range p.states() {
			p.apply(c, c.n.Drop(lane.ReasonDown, p.now()))
		}
		p.retryAt = 0
	}
	for _, other := range nd.w.nodes[1:] {
		if nd.index == 0 || other == nd {
			nd.w.net.After(nd.w.between(0, nd.w.style.redialNanos), func() { nd.w.dial(other, nd.w.nodes[0]) })
		}
	}
}

// mend makes sessions where the newest is over.
func (w *world) mend() {
	for _, nd := range w.nodes[1:] {
		s := w.newest(nd)
		if s == nil {
			w.dial(nd, w.nodes[0])
			continue
		}
		if s.began && (!s.up[0] || !s.up[1]) {
			s.given = true
			s.finish(s.nodes[0], false)
			s.finish(s.nodes[1], false)
		}
		if s.given {
			w.dial(nd, w.nodes[0])
		}
	}
}

// newest is a member's last session, begun or not.
func (w *world) newest(nd *node) *session {
	for _, s := range slices.Backward(w.sessions) {
		if s.nodes[0] == nd || s.nodes[1] == nd {
			return s
		}
	}
	return nil
}

// settle ends the storm, waits, and sees that all is well.
func (w *world) settle() {
	w.calm = true
	w.logf("calm")
	for _, nd := range w.nodes {
		c := Conditions{DelayNanos: w.linkOf(nd).DelayNanos, MTUBytes: w.linkOf(nd).MTUBytes}
		if nd.index > 0 && w.style.pathMTU > 0 {
			c.MTUBytes = w.style.pathMTU
		}
		nd.host.SetLink(c, c)
		nd.host.SetInterfaceBytes(1500)
		nd.stalled = 0
	}
	w.drive(w.net.Nanos() + calmNanos)
	for range settleTries { // a ratchet may be under way at any moment
		if w.fault == "" && w.disagreement() != "" {
			w.drive(w.net.Nanos() + second)
		}
	}
	if what := w.disagreement(); what != "" {
		w.failf("after %d s of calm: %s", calmNanos/second, what)
	}
	if w.fault != "" {
		return
	}
	w.farewell()
}

// disagreement says what is not as it must be at rest, if anything.
func (w *world) disagreement() string {
	for _, nd := range w.nodes[1:] {
		if what := w.disagreementWith(nd); what != "" {
			return fmt.Sprintf("%s, between nodes %d and 0", what, nd.index)
		}
	}
	return ""
}

func (w *world) disagreementWith(nd *node) string {
	gateway := w.nodes[0]
	a := nd.parties[0].current
	if a == nil || a.lane == nil {
		return "no lane"
	}
	b := a.twin()
	if b == nil {
		return "one end of a lane"
	}
	epochA, openedA := a.lane.Epoch()
	epochB, openedB := b.lane.Epoch()
	switch {
	case nd.parties[0].older != nil:
		return "two lanes"
	case a.n.Bound() == nil || b.n.Bound() == nil:
		return "a lane without a session"
	case epochA != epochB || !openedA || !openedB:
		return fmt.Sprintf("epochs %d and %d", epochA, epochB)
	case !nd.machine.carries(gateway) || !gateway.machine.carries(nd):
		return "a lane that does not carry packets"
	}
	return ""
}

// farewell sends packets that must all arrive, over lanes and nothing else.
func (w *world) farewell() {
	var sent []*innerPacket
	over := w.counts.overSession
	for _, s := range w.tap.byID {
		s.longest = 0
	}
	for _, nd := range w.nodes[1:] {
		for _, way := range [][2]*node{{nd, w.nodes[0]}, {w.nodes[0], nd}} {
			full := way[0].machine.maxInner(way[1])
			for _, bytes := range []int{innerMinBytes, 200, full, 1280, full - 1, 1000} {
				sent = append(sent, w.sendInner(way[0], way[1], bytes, false))
			}
		}
	}
	w.drive(w.net.Nanos() + 2*second)
	for _, p := range sent {
		if p.delivered != 1 && w.fault == "" {
			w.failf("in a network without faults: a packet of %d bytes from node %d to node %d did not arrive",
				len(p.bytes), p.from.index, p.to.index)
		}
	}
	if w.counts.overSession != over {
		w.failf("packets go over sessions in a network without faults")
	}
	for _, nd := range w.nodes[1:] {
		w.atHome(nd, w.nodes[0])
		w.atHome(w.nodes[0], nd)
	}
	for _, nd := range w.nodes {
		if m, ok := nd.machine.(*parts); ok {
			m.holdsNothing()
		}
	}
}

// atHome sees that a node's lane sends to where its peer is, and no longer packets than the path carries.
func (w *world) atHome(nd, peer *node) {
	c := nd.parties[peer.index].current
	if peer.index != 0 { // the gateway may have the end of a lane that the member has given up already
		c = peer.parties[0].current.twin()
	}
	if w.fault != "" || c == nil {
		return
	}
	s := c.side
	want := netip.AddrPortFrom(peer.addr, port)
	at := s.lastData
	if peer.nat != nil {
		want = netip.AddrPortFrom(peer.nat.Addr(), at.Port())
	}
	if at != want || w.net.Nanos()-s.lastDataAt > 3*second {
		w.failf("node %d sends to %v, node %d is at %v", nd.index, at, peer.index, want)
	}
	// An engine tells what passes in pieces; parts tell what passes in one.
	carried := min(nd.host.Up().MTUBytes, peer.host.Down().MTUBytes) - HeaderBytes(want.Addr())
	size := sealedBytes(nd.machine.maxInner(peer))
	pieces := size == sealedBytes(1280)
	switch exact := min(carried, maxPacketBytes); {
	case s.longest > carried:
		w.failf("node %d sends packets of %d bytes, the path carries %d", nd.index, s.longest, carried)
	case w.style.lossless && size != exact && !(pieces && exact < size):
		w.failf("node %d has found %d bytes, the path carries %d", nd.index, size, exact)
	}
}

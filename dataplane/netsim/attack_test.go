package netsim

import (
	"bytes"
	"net/netip"
	"slices"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// strange is where the attacker is. Nobody answers there.
var strange = netip.MustParseAddrPort("203.0.113.66:443")

// attack has somebody on the path do something with the packets that have crossed it.
func (w *world) attack() {
	if len(w.tap.recent) == 0 || w.fault != "" || w.calm {
		return
	}
	r := w.tap.recent[w.rng.IntN(len(w.tap.recent))]
	d := &Datagram{From: strange, To: r.to.nd.socket.LocalAddr(), Payload: slices.Clone(r.payload)}
	if w.rng.IntN(2) == 0 {
		d.From = w.tap.placeOf(r.from, r.to)
	}
	w.counts.attacks++
	switch w.rng.IntN(7) {
	case 0: // noise with a connection ID that is known
		for i := lane.HeaderBytes - 4; i < len(d.Payload); i++ {
			d.Payload[i] = byte(w.rng.Uint32())
		}
	case 1:
		d.Payload[w.rng.IntN(len(d.Payload))] ^= 1 << w.rng.IntN(8)
	case 2:
		d.Payload = d.Payload[:w.rng.IntN(len(d.Payload))]
	case 3:
		d.Payload = append(d.Payload, make([]byte, 1+w.rng.IntN(100))...)
	case 4: // a packet of another lane
		other := w.tap.recent[w.rng.IntN(len(w.tap.recent))]
		if other.to == r.to {
			return
		}
		copy(d.Payload[1:], other.payload[1:1+lane.ConnectionIDBytes])
		d.To = other.to.nd.socket.LocalAddr()
		r = other
	case 5: // a replay
		if !r.taken || w.net.Nanos()-r.at < second {
			return
		}
		d.ID = r.id
	default: // the attacker is faster than the network
		w.steal()
		return
	}
	if len(d.Payload) > 0 && d.Payload[0]&0x80 != 0 {
		return // a session's affair
	}
	m := r.to.nd.machine
	before := m.state()
	r.to.nd.arrived(d)
	if after := m.state(); !bytes.Equal(before, after) {
		w.failf("node %d: a packet that does not open has changed\n%s\nto\n%s", r.to.nd.index, before, after)
	}
}

// steal brings packets that are still under way to their receivers from somewhere else: one, or all that ask for an
// answer. What goes to the attacker goes no further: who passes everything on, both ways, is a path, and moves a lane for a
// moment (RFC 9000 section 9.3.3).
func (w *world) steal() {
	var under, asking []*record
	for _, r := range w.tap.recent {
		if r.taken || r.place == strange || w.net.Nanos()-r.at > second {
			continue
		}
		under = append(under, r)
		if r.frames.Set.Has(lane.HasPathChallenge) && !r.frames.Set.Has(lane.HasPadding) {
			asking = append(asking, r)
		}
	}
	if len(asking) == 0 && len(under) > 0 {
		asking = append(asking, under[w.rng.IntN(len(under))])
	}
	for _, r := range asking {
		d := &Datagram{ID: r.id, From: strange, To: r.to.nd.socket.LocalAddr(), Payload: r.payload}
		w.tap.arrived(r.to.nd.host, d)
		r.to.nd.arrived(d)
	}
}

// placeOf is where a node's packets for an end of a lane come from.
func (t *tap) placeOf(nd *node, to *side) netip.AddrPort {
	if nd.nat == nil {
		return nd.socket.LocalAddr()
	}
	if to.lastFrom.IsValid() {
		return to.lastFrom
	}
	return strange
}

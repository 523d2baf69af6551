package dataplane

import (
	"github.com/aethertunnel/aethertunnel/dataplane/icmp"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
)

// fromNIC checks a packet of our own host and finds the peer it goes to, nil for one that goes nowhere, which was dropped
// and answered.
func (e *Engine) fromNIC(r *routing, p []byte) (packet.Header, *peer) {
	h, ok := packet.Parse(p)
	switch {
	case !ok:
		e.drop(DropMalformed)
		return h, nil
	case !packet.Forwardable(h.Dst) || !packet.Forwardable(h.Src):
		e.drop(DropNotForwardable)
		return h, nil
	}
	if r.nicSources != nil {
		if _, ok := r.nicSources.Lookup(h.Src); !ok {
			e.drop(DropSource)
			return h, nil
		}
	}
	// What the kernel forwards to us has had its hop count taken down by the kernel, and what it sends itself must
	// keep it (RFC 9484 section 7), so nothing is decremented here.
	to, ok := r.lookup(h.Dst)
	if !ok || to.peer == nil {
		e.drop(DropNoRoute)
		e.answerUnreachable(r, nil, p, h, icmp.NoRoute)
		return h, nil
	}
	return h, to.peer
}

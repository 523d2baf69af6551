package dataplane

import (
	"context"

	"github.com/aethertunnel/aethertunnel/dataplane/icmp"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
)

// fromNIC routes one packet of our own host and reports whether the buffer was handed on.
func (e *Engine) fromNIC(ctx context.Context, r *routing, b *packetBuffer) bool {
	p := b.packet()
	h, ok := packet.Parse(p)
	switch {
	case !ok:
		e.drop(DropMalformed)
		return false
	case !packet.Forwardable(h.Dst) || !packet.Forwardable(h.Src):
		e.drop(DropNotForwardable)
		return false
	}
	if r.nicSources != nil {
		if _, ok := r.nicSources.Lookup(h.Src); !ok {
			e.drop(DropSource)
			return false
		}
	}
	to, ok := r.lookup(h.Dst)
	if !ok || to.peer == nil {
		e.drop(DropNoRoute)
		e.answerHost(r, p, h, icmp.NoRoute)
		return false
	}
	// What the kernel forwards to us has had its hop count taken down by the kernel, and what it sends itself must
	// keep it (RFC 9484 section 7.2), so nothing is decremented here.
	if reason, ok := to.peer.enqueue(ctx, queued{p, b}, r.onlyPeer); !ok {
		e.drop(reason)
		return false
	}
	return true
}

// fromPeer checks and routes one packet of a peer. The packet is ours to keep.
func (e *Engine) fromPeer(ctx context.Context, a *attachment, p []byte) {
	r := e.current.Load()
	h, ok := packet.Parse(p)
	switch {
	case !ok:
		e.drop(DropMalformed)
		return
	case !packet.Forwardable(h.Dst) || !packet.Forwardable(h.Src):
		e.drop(DropNotForwardable)
		return
	}
	if from, ok := r.lookup(h.Src); !ok || from.peer != a.peer {
		e.drop(DropSource)
		e.answerPeer(ctx, a.peer, e.unreachable(r, p, h, icmp.SourceNotAllowed))
		return
	}
	to, ok := r.lookup(h.Dst)
	switch {
	case !ok, to.peer == a.peer:
		e.drop(DropNoRoute)
		e.answerPeer(ctx, a.peer, e.unreachable(r, p, h, icmp.NoRoute))
	case to.peer == nil:
		select {
		case e.toNIC <- p:
		case <-ctx.Done():
		}
	default:
		e.betweenPeers(ctx, r, a.peer, to.peer, p, h)
	}
}

// betweenPeers forwards a packet from one peer to another, which is the one place where we are the router and take
// the hop count down.
func (e *Engine) betweenPeers(ctx context.Context, r *routing, from, to *peer, p []byte, h packet.Header) {
	if h.HopLimit <= 1 {
		e.drop(DropHopLimit)
		e.answerPeer(ctx, from, e.timeExceeded(r, p, h))
		return
	}
	packet.DecrementHopLimit(p)
	if reason, ok := to.enqueue(ctx, queued{packet: p}, false); !ok {
		e.drop(reason)
		if reason == DropNoSession {
			e.answerPeer(ctx, from, e.unreachable(r, p, h, icmp.HostUnreachable))
		}
	}
}

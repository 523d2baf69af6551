package dataplane

import (
	"context"

	"github.com/aethertunnel/aethertunnel/dataplane/icmp"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/tun"
)

// fromNIC routes one packet of our own host. The bytes stay the caller's.
func (e *Engine) fromNIC(ctx context.Context, r *routing, p []byte) {
	h, ok := packet.Parse(p)
	switch {
	case !ok:
		e.drop(DropMalformed)
		return
	case !packet.Forwardable(h.Dst) || !packet.Forwardable(h.Src):
		e.drop(DropNotForwardable)
		return
	}
	if r.nicSources != nil {
		if _, ok := r.nicSources.Lookup(h.Src); !ok {
			e.drop(DropSource)
			return
		}
	}
	to, ok := r.lookup(h.Dst)
	if !ok || to.peer == nil {
		e.drop(DropNoRoute)
		e.answerUnreachable(r, nil, p, h, icmp.NoRoute)
		return
	}
	if len(p) > packetBufferBytes {
		e.drop(DropTooBig)
		e.answerTooBig(p, packetBufferBytes)
		return
	}
	// What the kernel forwards to us has had its hop count taken down by the kernel, and what it sends itself must
	// keep it (RFC 9484 section 7), so nothing is decremented here.
	b := e.buffers.Get().(*packetBuffer) //nolint:forcetypeassert // the pool holds nothing else
	if reason, ok := e.enqueueOrWait(ctx, to.peer, queued{b[:copy(b[:], p)], b}); !ok {
		e.buffers.Put(b)
		e.drop(reason)
		if reason == DropNoSession && to.peer.isAway() {
			e.answerUnreachable(r, nil, p, h, icmp.HostUnreachable)
		}
	}
}

// fromPeer checks and routes one packet of a peer. The packet is ours to keep.
func (e *Engine) fromPeer(a *attachment, p []byte) {
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
		e.answerUnreachable(r, a.peer, p, h, icmp.SourceNotAllowed)
		return
	}
	to, ok := r.lookup(h.Dst)
	switch {
	case !ok, to.peer == a.peer:
		e.drop(DropNoRoute)
		e.answerUnreachable(r, a.peer, p, h, icmp.NoRoute)
	case len(p) > tun.MaxPacketBytes:
		e.drop(DropTooBig) // IPv6 allows 40 bytes more than any NIC takes
	case to.peer == nil:
		if !e.passToHost(p) {
			e.drop(DropQueueFull)
		}
	default:
		e.betweenPeers(r, a.peer, to.peer, p, h)
	}
}

// betweenPeers forwards a packet from one peer to another, which is the one place where we are the router and take
// the hop count down.
func (e *Engine) betweenPeers(r *routing, from, to *peer, p []byte, h packet.Header) {
	if h.HopLimit <= 1 {
		e.drop(DropHopLimit)
		e.answerTimeExceeded(r, from, p, h)
		return
	}
	packet.DecrementHopLimit(p)
	if reason, ok := e.enqueue(to, queued{packet: p}); !ok {
		e.drop(reason)
		if reason == DropNoSession && to.isAway() {
			e.answerUnreachable(r, from, p, h, icmp.HostUnreachable)
		}
	}
}

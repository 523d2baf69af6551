package dataplane

import (
	"net/netip"

	"github.com/aethertunnel/aethertunnel/dataplane/icmp"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/tun"
)

// source is our address of the family of h, from which errors about h are sent.
func (r *routing) source(h packet.Header) netip.Addr {
	if h.Version == 4 {
		return r.addr4
	}
	return r.addr6
}

// answer sends an error about a packet of header h to whoever sent it: a peer, or our own host if to is nil (RFC 9484
// section 7.2.1). build makes it, or nil when none may be sent. Nobody waits for an error, and one that finds no room
// counts as no drop: it is no packet that somebody sent.
func (e *Engine) answer(r *routing, to *peer, h packet.Header, build func(source netip.Addr) []byte) {
	// Linux takes a packet that comes in with one of its own addresses as source for forged, so what our own host is
	// told comes from where its packet was going.
	source, limit := h.Dst, e.hostErrors
	if to != nil {
		source, limit = r.source(h), to.errors
	}
	if !source.IsValid() || !limit.Allow() {
		return
	}
	message := build(source)
	switch {
	case message == nil:
	case to == nil:
		e.passToHost(message)
	default:
		e.sendAlone(to, message, false)
	}
}

// sendAlone queues one packet for a peer. It reports false if nothing reaches the peer. What is not queued is counted as
// dropped if it is a packet that somebody has sent.
func (e *Engine) sendAlone(to *peer, p []byte, counted bool) bool {
	b := e.buffers.get(len(p))
	if b == nil {
		e.dropIf(counted, DropQueueFull)
		return true
	}
	b.setPacket(copy(b.storage[tun.Headroom:], p), tun.Offload{})
	b.header, _ = packet.Parse(b.packet.Data) // of our own making, or parsed before
	b.hash = b.header.FlowHash(b.packet.Data, e.seed)
	if !e.push(to, []*buffer{b}, e.now()) {
		e.dropIf(counted, DropNoSession)
		e.buffers.put(b)
		return false
	}
	if l := to.lane.Load(); l != nil {
		e.kick(l)
	}
	return true
}

func (e *Engine) dropIf(counted bool, r Reason) {
	if counted {
		e.drop(r)
	}
}

// answerAway tells the sender of a packet that the peer it is for cannot be reached.
func (e *Engine) answerAway(b *buffer) {
	r := e.current.Load()
	from, _ := r.lookup(b.header.Src)
	e.answerUnreachable(r, from.peer, b.packet.Data, b.header, icmp.HostUnreachable)
}

// answerUnreachable says that p has no way on, and why.
func (e *Engine) answerUnreachable(r *routing, to *peer, p []byte, h packet.Header, why icmp.Reason) {
	e.answer(r, to, h, func(source netip.Addr) []byte { return icmp.Unreachable(p, why, source) })
}

// answerTimeExceeded says that p ran out of hops here.
func (e *Engine) answerTimeExceeded(r *routing, to *peer, p []byte, h packet.Header) {
	e.answer(r, to, h, func(source netip.Addr) []byte { return icmp.TimeExceeded(p, source) })
}

// answerTooBig tells the sender of p, wherever it is, that only maxBytes fit (RFC 1191, RFC 8201).
func (e *Engine) answerTooBig(p []byte, maxBytes int) {
	h, ok := packet.Parse(p)
	if !ok {
		return
	}
	r := e.current.Load()
	// Whom no peer has is behind our own host: it was the NIC that p came from.
	sender, _ := r.lookup(h.Src)
	e.answer(r, sender.peer, h, func(source netip.Addr) []byte { return icmp.TooBig(p, maxBytes, source) })
}

package dataplane

import (
	"net/netip"

	"github.com/aethertunnel/aethertunnel/dataplane/icmp"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
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
		e.enqueue(to, queued{packet: message})
	}
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

package dataplane

import (
	"context"
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

// answerHost tells our own host that a packet it sent was not passed on (RFC 9484 section 7.2.1).
func (e *Engine) answerHost(r *routing, p []byte, h packet.Header, reason icmp.Reason) {
	answer := e.unreachable(r, p, h, reason)
	if answer == nil {
		return
	}
	select {
	case e.toNIC <- answer:
	default: // the host is not reading: an error message is not worth waiting for
	}
}

// answerPeer tells a peer that a packet it sent was not passed on.
func (e *Engine) answerPeer(ctx context.Context, to *peer, answer []byte) {
	if answer != nil {
		to.enqueue(ctx, queued{packet: answer}, false) // lost errors are no loss: they are rate-limited anyway
	}
}

// unreachable makes the error for a packet that has no way on, or nil when none is to be sent.
func (e *Engine) unreachable(r *routing, p []byte, h packet.Header, reason icmp.Reason) []byte {
	if src := r.source(h); src.IsValid() && e.icmp.Allow() {
		return icmp.Unreachable(p, reason, src)
	}
	return nil
}

// timeExceeded makes the error for a packet that ran out of hops here, or nil when none is to be sent.
func (e *Engine) timeExceeded(r *routing, p []byte, h packet.Header) []byte {
	if src := r.source(h); src.IsValid() && e.icmp.Allow() {
		return icmp.TimeExceeded(p, src)
	}
	return nil
}

// answerTooBig tells the sender of p, wherever it is, that only max bytes fit (RFC 1191, RFC 8201).
func (e *Engine) answerTooBig(p []byte, maxBytes int) {
	r := e.current.Load()
	h, ok := packet.Parse(p)
	if !ok || !r.source(h).IsValid() || !e.icmp.Allow() {
		return
	}
	answer := icmp.TooBig(p, maxBytes, r.source(h))
	if answer == nil {
		return
	}
	from, known := r.lookup(h.Src)
	if known && from.peer != nil {
		from.peer.enqueue(context.Background(), queued{packet: answer}, false)
		return
	}
	select {
	case e.toNIC <- answer:
	default:
	}
}

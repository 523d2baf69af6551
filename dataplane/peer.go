package dataplane

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// peer outlives snapshots and carriers.
type peer struct {
	turn   atomic.Pointer[turn]
	gone   chan struct{} // closed when a snapshot no longer lists the peer
	errors *rate.Limiter // ICMP errors sent to it

	attachments []*attachment // oldest first; guarded by Engine.mu

	receivedPackets, receivedBytes, sentPackets, sentBytes atomic.Uint64
}

// turn says which carrier of a peer sends. It never changes; another takes its place.
type turn struct {
	of     *attachment   // nil while the peer has no carrier
	queue  chan queued   // what waits for the peer, handed from turn to turn; nil while it has no carrier
	since  time.Time     // without a carrier: since when; zero if there never was one
	passed chan struct{} // closed when another turn has begun
}

// queued is a packet on its way to a carrier.
type queued struct {
	packet []byte
	buffer *packetBuffer // where packet lives when it came from the NIC, to be given back; else nil
}

func newPeer() *peer {
	p := &peer{gone: make(chan struct{}), errors: rate.NewLimiter(icmpPerSecond, icmpBurst)}
	p.turn.Store(&turn{passed: make(chan struct{})})
	return p
}

// isAway reports whether the peer has been without a carrier for so long that senders should know.
func (p *peer) isAway() bool {
	t := p.turn.Load()
	return t.of == nil && time.Since(t.since) >= reconnectGrace
}

// passTurnLocked lets a send to the peer from now on, or nobody if it is nil; what waits then is dropped.
func (e *Engine) passTurnLocked(p *peer, a *attachment) {
	before := p.turn.Load()
	next := &turn{of: a, passed: make(chan struct{})}
	switch {
	case a == nil:
		next.since = time.Now()
	case before.queue != nil:
		next.queue = before.queue
	default:
		next.queue = make(chan queued, peerQueuePackets)
	}
	p.turn.Store(next)
	close(before.passed)
	if a == nil && before.queue != nil {
		e.discard(before.queue)
	}
}

// enqueue passes a packet to the peer's newest carrier, unless that does not keep up, and reports whether the packet
// was taken.
func (e *Engine) enqueue(p *peer, q queued) (Reason, bool) {
	t := p.turn.Load()
	if t.of == nil {
		return DropNoSession, false
	}
	select {
	case t.queue <- q:
		e.mindQueue(p, t)
		return 0, true
	default:
		return DropQueueFull, false
	}
}

// enqueueOrWait is enqueue for the NIC reader. With a single peer it waits while the queue is full: that is how the
// peer's congestion reaches the sending application. With several it does not, since one would hold up all.
func (e *Engine) enqueueOrWait(ctx context.Context, p *peer, q queued) (Reason, bool) {
	for {
		reason, ok := e.enqueue(p, q)
		if ok || reason != DropQueueFull {
			return reason, ok
		}
		r, t := e.current.Load(), p.turn.Load()
		if !r.onlyPeer {
			return DropQueueFull, false
		}
		select {
		case t.queue <- q: // never, if t is a turn of nobody: then the next round says so as soon as it has passed
			e.mindQueue(p, t)
			return 0, true
		case <-t.passed:
		case <-r.replaced: // perhaps there is a second peer by now
		case <-ctx.Done():
			return DropQueueFull, false
		}
	}
}

// mindQueue is called after a packet was put into the queue of t: if the peer lost its last carrier in between, nobody
// else will ever look there.
func (e *Engine) mindQueue(p *peer, t *turn) {
	if p.turn.Load().queue != t.queue {
		e.discard(t.queue)
	}
}

// discard drops what waits in a queue that no carrier empties any more.
func (e *Engine) discard(queue <-chan queued) {
	for {
		select {
		case q := <-queue:
			e.drop(DropNoSession)
			e.release(q)
		default:
			return
		}
	}
}

// release gives a packet's buffer back.
func (e *Engine) release(q queued) {
	if q.buffer != nil {
		e.buffers.Put(q.buffer)
	}
}

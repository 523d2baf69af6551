package dataplane

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/aethertunnel/aethertunnel/dataplane/sched"
)

// peer outlives snapshots, carriers and lanes.
type peer struct {
	turn   atomic.Pointer[turn]
	lane   atomic.Pointer[Lane] // nil: packets go through the carrier whose turn it is
	gone   chan struct{}        // closed when a snapshot no longer lists the peer
	errors *rate.Limiter        // ICMP errors sent to it
	wake   chan struct{}        // capacity 1: there may be something in the queue for the carrier

	attachments []*attachment // oldest first; guarded by Engine.mu

	lanesMu sync.Mutex // guards lanes and cutOff
	lanes   []*Lane    // all there are, that which carries packets among them
	cutOff  bool       // no longer listed: there will be no more lanes

	queue   *sched.Queue[*buffer] // what waits for the peer; guarded by Engine.queueMu
	waiting atomic.Int64          // packets in the queue, written under Engine.queueMu

	receivedPackets, receivedBytes, sentPackets, sentBytes atomic.Uint64
}

// turn says which carrier of a peer sends. It never changes; another takes its place.
type turn struct {
	of     *attachment   // nil while the peer has no carrier
	since  time.Time     // without a carrier: since when; zero if there never was one
	passed chan struct{} // closed when another turn has begun
}

func (e *Engine) newPeer() *peer {
	p := &peer{
		gone: make(chan struct{}), errors: rate.NewLimiter(icmpPerSecond, icmpBurst), wake: make(chan struct{}, 1),
	}
	p.turn.Store(&turn{passed: make(chan struct{})})
	e.queueMu.Lock()
	defer e.queueMu.Unlock()
	p.queue = e.queues.NewQueue()
	return p
}

// reachable reports whether anything takes the peer's packets.
func (p *peer) reachable() bool { return p.lane.Load() != nil || p.turn.Load().of != nil }

// isAway reports whether the peer has been unreachable for so long that senders should know.
func (p *peer) isAway() bool {
	return !p.reachable() && time.Since(p.turn.Load().since) >= reconnectGrace
}

// passTurnLocked lets a send to the peer from now on, or nobody if it is nil.
func (e *Engine) passTurnLocked(p *peer, a *attachment) {
	before := p.turn.Load()
	next := &turn{of: a, passed: make(chan struct{})}
	if a == nil {
		next.since = time.Now()
	}
	p.turn.Store(next)
	close(before.passed)
	e.discardUnreachable(p)
}

// addLane reports false for a peer that is no longer listed.
func (p *peer) addLane(l *Lane) bool {
	p.lanesMu.Lock()
	defer p.lanesMu.Unlock()
	if !p.cutOff {
		p.lanes = append(p.lanes, l)
	}
	return !p.cutOff
}

func (p *peer) removeLane(l *Lane) {
	p.lanesMu.Lock()
	defer p.lanesMu.Unlock()
	p.lanes = slices.DeleteFunc(p.lanes, func(o *Lane) bool { return o == l })
}

// cutOffLocked ends everything that reaches a peer which is no longer listed.
func (e *Engine) cutOffLocked(p *peer) {
	p.lanesMu.Lock()
	lanes := slices.Clone(p.lanes)
	p.cutOff = true
	p.lanesMu.Unlock()
	for _, l := range lanes {
		l.Close()
	}
	e.passTurnLocked(p, nil)
	close(p.gone)
}

package dataplane

import (
	"context"
	"sync"
)

// kicks are lanes that have something to send although nobody with a sender of his own is about to serve them: what
// control has the lane itself say, and ICMP errors for its peer.
type kicks struct {
	mu    sync.Mutex
	lanes []*Lane       // none twice
	wake  chan struct{} // capacity 1
}

// kick has a lane served by the engine's own sender.
func (e *Engine) kick(l *Lane) {
	if l.kicked.Swap(true) {
		return
	}
	e.kicks.mu.Lock()
	e.kicks.lanes = append(e.kicks.lanes, l)
	e.kicks.mu.Unlock()
	select {
	case e.kicks.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// serveKicked serves the lanes that were kicked, until ctx ends.
func (e *Engine) serveKicked(ctx context.Context) error {
	s := e.newSender()
	for {
		select {
		case <-e.kicks.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		e.kicks.mu.Lock()
		lanes := e.kicks.lanes
		e.kicks.lanes = nil
		e.kicks.mu.Unlock()
		for _, l := range lanes {
			l.kicked.Store(false)
			for s.serveLane(l, e.now()) {
			}
		}
	}
}

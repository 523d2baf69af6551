package dataplane

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"
)

// attachment is one carrier of one peer.
type attachment struct {
	peer    *peer
	carrier Carrier
}

// Attach connects a carrier to a peer and serves it until ctx ends, the carrier fails, or a snapshot no longer
// lists the peer, and returns which: the context's error, the carrier's, or ErrUnknownPeer. The newest carrier of a
// peer sends; older ones go on receiving, so that a new session can take over before the old one ends, and send again
// if the newer one fails. What waits for the peer is handed from one to the next, and dropped when there is none left.
// Closing the carrier is the caller's task.
func (e *Engine) Attach(ctx context.Context, id PeerID, c Carrier) error {
	a, err := e.register(id, c)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(contained(func() error { return e.sendLoop(ctx, a) }))
	group.Go(contained(func() error { return e.receiveLoop(ctx, a) }))
	// The turn passes as soon as one of them ends, even if the other hangs in a dying carrier for a while.
	group.Go(func() error {
		var err error
		select {
		case <-ctx.Done():
		case <-a.peer.gone:
			err = ErrUnknownPeer
		}
		e.unregister(a)
		return err
	})
	return group.Wait()
}

func (e *Engine) register(id PeerID, c Carrier) (*attachment, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peers[id]
	if p == nil {
		return nil, ErrUnknownPeer
	}
	a := &attachment{peer: p, carrier: c}
	p.attachments = append(p.attachments, a)
	e.passTurnLocked(p, a)
	return a, nil
}

func (e *Engine) unregister(a *attachment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := a.peer
	p.attachments = slices.DeleteFunc(p.attachments, func(o *attachment) bool { return o == a })
	if p.turn.Load().of != a {
		return
	}
	var next *attachment
	if n := len(p.attachments); n > 0 {
		next = p.attachments[n-1]
	}
	e.passTurnLocked(p, next)
}

// sendLoop brings queued packets to the carrier while it is its turn and the peer has no lane.
func (e *Engine) sendLoop(ctx context.Context, a *attachment) error {
	out := carrierSender{e: e, a: a}
	for {
		t := a.peer.turn.Load()
		wake := a.peer.wake
		switch {
		case t.of != a:
			wake = nil
		case a.peer.lane.Load() == nil:
			if sent, err := out.sendNext(); err != nil {
				return err
			} else if sent && ctx.Err() == nil {
				continue
			}
		}
		select {
		case <-wake:
		case <-t.passed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

package dataplane

import (
	"context"
	"errors"
	"fmt"
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

// sendLoop brings queued packets to the carrier while it is its turn.
func (e *Engine) sendLoop(ctx context.Context, a *attachment) error {
	for {
		t := a.peer.turn.Load()
		var queue <-chan queued
		if t.of == a {
			queue = t.queue
		}
		select {
		case q := <-queue:
			if err := e.send(a, q); err != nil {
				return err
			}
		case <-t.passed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send brings one packet to the carrier and gives its buffer back.
func (e *Engine) send(a *attachment, q queued) error {
	lost := true // until the carrier, even a panicking one, has said otherwise
	defer func() {
		if lost {
			e.drop(DropNoSession)
		}
		e.release(q)
	}()
	if a.peer.turn.Load().of == nil {
		return nil // cut off after the packet had been queued
	}
	err := a.carrier.SendPacket(q.packet)
	if err == nil {
		lost = false
		a.peer.sentPackets.Add(1)
		a.peer.sentBytes.Add(uint64(len(q.packet)))
		return nil
	}
	if tooBig, ok := errors.AsType[*TooBigError](err); ok {
		lost = false
		e.drop(DropTooBig)
		e.answerTooBig(q.packet, tooBig.MaxPacketBytes)
		return nil
	}
	return fmt.Errorf("send to peer: %w", err)
}

// receiveLoop brings packets from the carrier to their destinations.
func (e *Engine) receiveLoop(ctx context.Context, a *attachment) error {
	for {
		packet, err := a.carrier.ReceivePacket(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("receive from peer: %w", err)
		}
		a.peer.receivedPackets.Add(1)
		a.peer.receivedBytes.Add(uint64(len(packet)))
		if ctx.Err() != nil {
			e.drop(DropNoSession) // a carrier under load may look at what it has before it looks at the context
			return ctx.Err()
		}
		e.fromPeer(a, packet)
	}
}

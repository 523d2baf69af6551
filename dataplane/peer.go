package dataplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// ErrUnknownPeer is returned by Attach for a peer that the current snapshot does not list.
var ErrUnknownPeer = errors.New("peer is not in the snapshot")

// peer outlives snapshots and carriers.
type peer struct {
	id     PeerID
	active atomic.Pointer[attachment] // the newest carrier, which sends; nil when none

	attachments []*attachment // oldest first; guarded by Engine.mu

	receivedPackets, receivedBytes, sentPackets, sentBytes atomic.Uint64
}

// attachment is one carrier of one peer and what waits for it.
type attachment struct {
	peer    *peer
	carrier Carrier
	queue   chan queued
	done    <-chan struct{}
}

// queued is a packet on its way to a carrier.
type queued struct {
	packet []byte
	buffer *packetBuffer // where packet lives when it came from the NIC, to be given back; else nil
}

// Attach connects a carrier to a peer and serves it until ctx ends or the carrier fails. The newest carrier of a peer
// sends; older ones go on receiving, so that a new session can take over before the old one ends.
func (e *Engine) Attach(ctx context.Context, id PeerID, c Carrier) error {
	group, ctx := errgroup.WithContext(ctx)
	a := &attachment{carrier: c, queue: make(chan queued, peerQueuePackets), done: ctx.Done()}
	if err := e.register(id, a); err != nil {
		return err
	}
	group.Go(func() error { return e.sendLoop(ctx, a) })
	group.Go(func() error { return e.receiveLoop(ctx, a) })
	err := group.Wait()
	e.unregister(a)
	return err
}

func (e *Engine) register(id PeerID, a *attachment) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peers[id]
	if p == nil {
		return ErrUnknownPeer
	}
	a.peer = p
	p.attachments = append(p.attachments, a)
	p.active.Store(a)
	return nil
}

func (e *Engine) unregister(a *attachment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := a.peer
	p.attachments = slices.DeleteFunc(p.attachments, func(o *attachment) bool { return o == a })
	if p.active.Load() == a {
		p.active.Store(nil)
		if n := len(p.attachments); n > 0 {
			p.active.Store(p.attachments[n-1])
		}
	}
}

// sendLoop brings queued packets to the carrier.
func (e *Engine) sendLoop(ctx context.Context, a *attachment) error {
	for {
		select {
		case q := <-a.queue:
			if err := e.send(a, q.packet); err != nil {
				return err
			}
			if q.buffer != nil {
				e.buffers.Put(q.buffer)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (e *Engine) send(a *attachment, packet []byte) error {
	err := a.carrier.SendPacket(packet)
	if err == nil {
		a.peer.sentPackets.Add(1)
		a.peer.sentBytes.Add(uint64(len(packet)))
		return nil
	}
	if tooBig, ok := errors.AsType[*TooBigError](err); ok {
		e.drop(DropTooBig)
		e.answerTooBig(packet, tooBig.MaxPacketBytes)
		return nil
	}
	return fmt.Errorf("send to peer: %w", err)
}

// receiveLoop brings packets from the carrier to their destinations.
func (e *Engine) receiveLoop(ctx context.Context, a *attachment) error {
	for {
		packet, err := a.carrier.ReceivePacket(ctx)
		if err != nil {
			return fmt.Errorf("receive from peer: %w", err)
		}
		a.peer.receivedPackets.Add(1)
		a.peer.receivedBytes.Add(uint64(len(packet)))
		e.fromPeer(ctx, a, packet)
	}
}

// enqueue passes a packet to the peer's newest carrier and reports whether the packet was taken. With wait set it
// blocks while the queue is full: it is the way in which a single peer's congestion reaches the sending application.
func (p *peer) enqueue(ctx context.Context, q queued, wait bool) (Reason, bool) {
	a := p.active.Load()
	if a == nil {
		return DropNoSession, false
	}
	select {
	case a.queue <- q:
		return 0, true
	default:
	}
	if wait {
		select {
		case a.queue <- q:
			return 0, true
		case <-a.done:
			return DropNoSession, false
		case <-ctx.Done():
			return DropNoSession, false
		}
	}
	return DropQueueFull, false
}

package dataplane

import (
	"context"
	"errors"
	"fmt"

	"github.com/aethertunnel/aethertunnel/dataplane/icmp"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/tun"
)

// carrierSender empties a peer's queue into a carrier, one packet at a time and each with a complete checksum.
type carrierSender struct {
	e     *Engine
	a     *attachment
	batch [1]*buffer
}

// sendNext sends what is first in the queue and reports whether there was anything.
func (c *carrierSender) sendNext() (bool, error) {
	if c.e.pop(c.a.peer, c.batch[:], tun.MaxPacketBytes, c.e.now()) == 0 {
		return false, nil
	}
	b := c.batch[0]
	c.batch[0] = nil
	defer c.e.buffers.put(b)
	data, o := b.packet.Data, b.packet.Offload
	if o.Segmentation != tun.SegmentNone {
		return true, c.sendSegments(b)
	}
	if o.PartialChecksum && !packet.Complete(data, o.ChecksumStart, o.ChecksumOffset) {
		c.e.drop(DropOffload)
		return true, nil
	}
	if packet.IsSYN(data) {
		packet.ClampMSS(data, c.a.carrier.MaxPacketBytes(), false)
	}
	_, err := c.send(data)
	return true, err
}

// sendSegments cuts a super-packet in its own buffer, each segment's headers over what has been sent.
func (c *carrierSender) sendSegments(b *buffer) error {
	cutter, ok := packet.NewCutter(b.packet.Data, b.packet.Offload)
	if !ok {
		c.e.drop(DropOffload)
		return nil
	}
	headers := cutter.HeaderBytes()
	from := 0
	if b.marked && cutter.Segments() > 1 {
		from = 1
		c.e.drop(DropQueueDelay)
	}
	for k := from; k < cutter.Segments(); k++ {
		at, n := cutter.Payload(k)
		segment := b.framed(at-headers, at+n, 0)
		cutter.PutHeader(segment, k, false)
		taken, err := c.send(segment)
		if err == nil && taken {
			continue
		}
		// The other segments would not fit either, or find no carrier.
		reason := DropTooBig
		if err != nil || c.a.peer.turn.Load().of == nil {
			reason = DropNoSession
		}
		c.e.drops[reason].Add(uint64(cutter.Segments() - 1 - k))
		return err
	}
	return nil
}

// send brings one packet to the carrier. It reports false for a packet that the carrier does not take.
func (c *carrierSender) send(p []byte) (taken bool, err error) {
	lost := true // until the carrier, even a panicking one, has said otherwise
	defer func() {
		if lost {
			c.e.drop(DropNoSession)
		}
	}()
	if c.a.peer.turn.Load().of == nil {
		return false, nil // cut off after the packet had been taken from the queue
	}
	err = c.a.carrier.SendPacket(p)
	if err == nil {
		lost = false
		c.a.peer.sentPackets.Add(1)
		c.a.peer.sentBytes.Add(uint64(len(p)))
		return true, nil
	}
	if tooBig, ok := errors.AsType[*TooBigError](err); ok {
		lost = false
		c.e.drop(DropTooBig)
		c.e.answerTooBig(p, tooBig.MaxPacketBytes)
		return false, nil
	}
	return false, fmt.Errorf("send to peer: %w", err)
}

// receiveLoop brings packets from the carrier to their destinations.
func (e *Engine) receiveLoop(ctx context.Context, a *attachment) error {
	for {
		p, err := a.carrier.ReceivePacket(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("receive from peer: %w", err)
		}
		a.peer.receivedPackets.Add(1)
		a.peer.receivedBytes.Add(uint64(len(p)))
		if ctx.Err() != nil {
			e.drop(DropNoSession) // a carrier under load may look at what it has before it looks at the context
			return ctx.Err()
		}
		e.fromCarrier(a.peer, p)
	}
}

// fromCarrier routes one packet that a carrier brought. The packet is ours to keep.
func (e *Engine) fromCarrier(from *peer, p []byte) {
	r := e.current.Load()
	h, to, ok := e.fromPeer(r, from, p)
	switch {
	case !ok:
	case to.peer == nil:
		if !e.passToHost(p) {
			e.drop(DropQueueFull)
		}
	case h.HopLimit <= 1:
		e.drop(DropHopLimit)
		e.answerTimeExceeded(r, from, p, h)
	default:
		packet.DecrementHopLimit(p)
		if !e.sendAlone(to.peer, p, true) && to.peer.isAway() {
			e.answerUnreachable(r, from, p, h, icmp.HostUnreachable)
		}
	}
}

package dataplane

import (
	"context"
	"errors"
	"fmt"

	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/tun"
)

const (
	// readPackets is how many packets are taken from the NIC at once, and readBytes about how many bytes, before
	// what is waiting is sent.
	readPackets, readBytes = 64, 256 << 10
	// copyBytes is the longest packet that is copied into a buffer of its own length. A longer one is passed on where it
	// was read to.
	copyBytes = 16 << 10
	// writerBatchPackets is how many packets of carriers go to the NIC at once; neighbours of a flow are joined.
	writerBatchPackets = 64
)

// reader brings the packets of our own host into the queues of peers, and empties those into lanes.
type reader struct {
	e       *Engine
	nic     *nic
	sender  *sender
	packets [readPackets]tun.Packet
	buffers [readPackets]*buffer // large, one for each packet
}

// readNIC drains the NIC. While there is something to send it only takes what is there, so that no packet waits in the
// NIC behind others that should come later.
func (e *Engine) readNIC(ctx context.Context) error {
	r := &reader{e: e, nic: e.nic.Load(), sender: e.newSender()}
	for i := range r.buffers {
		r.buffers[i] = newBuffer(len(bufferBytes) - 1)
		r.packets[i].Data = r.buffers[i].storage
	}
	canPoll := r.nic.Offloads().VirtioHeader
	for busy := false; ; {
		read := r.nic.ReadPackets
		if busy && canPoll {
			read = r.nic.TryReadPackets
		}
		n, err := read(r.packets[:], readBytes)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now, snapshot := e.now(), e.current.Load()
		for i := range n {
			r.take(snapshot, i, now)
		}
		r.sender.commit(now)
		busy = r.sender.serve(now)
		for busy && !canPoll {
			busy = r.sender.serve(e.now())
		}
		if errors.Is(err, tun.ErrUnreadable) {
			e.drop(DropNICUnreadable)
		} else if err != nil {
			return fmt.Errorf("dataplane: %w", err)
		}
	}
}

// take routes the packet that was read into buffer i.
func (r *reader) take(snapshot *routing, i int, nowNanos int64) {
	read, b := r.packets[i], r.buffers[i]
	r.packets[i].Data = b.storage
	header, to := r.e.fromNIC(snapshot, read.Data)
	if to == nil {
		return
	}
	if len(read.Data) <= copyBytes {
		if b = r.e.buffers.get(len(read.Data)); b == nil {
			r.e.drop(DropQueueFull)
			return
		}
		copy(b.storage[tun.Headroom:], read.Data)
	} else {
		other := r.e.buffers.get(tun.MaxPacketBytes)
		if other == nil {
			r.e.drop(DropQueueFull)
			return
		}
		r.buffers[i], r.packets[i].Data = other, other.storage
	}
	b.setPacket(len(read.Data), read.Offload)
	b.header, b.hash = header, header.FlowHash(b.packet.Data, r.e.seed)
	r.sender.stage(to, b, nowNanos)
}

// writeNIC hands the packets of carriers to the host, as many at once as are waiting.
func (e *Engine) writeNIC(ctx context.Context) error {
	nic := e.nic.Load()
	joiner := packet.NewJoiner(nic.join)
	for {
		select {
		case p := <-e.toNIC:
			joiner.Add(p, false, 0)
		case <-ctx.Done():
			return ctx.Err()
		}
	gather:
		for range writerBatchPackets - 1 {
			select {
			case p := <-e.toNIC:
				joiner.Add(p, false, 0) // always taken: a Joiner has room for more
			default:
				break gather
			}
		}
		if err := e.writeJoined(nic, joiner); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
}

// writeJoined hands all that a joiner holds to the host.
func (e *Engine) writeJoined(nic *nic, joiner *packet.Joiner) error {
	e.writing.Lock()
	defer e.writing.Unlock()
	for {
		joined, ok := joiner.Next()
		if !ok {
			return nil
		}
		if err := e.write(nic, &joined); err != nil {
			return err
		}
	}
}

// write hands one packet to the host, for a caller that holds the writing lock. The error means that the device is gone.
func (e *Engine) write(nic *nic, joined *packet.Joined) error {
	if joined.Offload.PartialChecksum && !nic.Offloads().VirtioHeader {
		if !packet.Complete(joined.Pieces[0], joined.Offload.ChecksumStart, joined.Offload.ChecksumOffset) {
			e.drop(DropOffload)
			return nil
		}
		joined.Offload = tun.Offload{}
	}
	err := nic.WritePacket(joined.Pieces, joined.Offload)
	if err == nil {
		return nil
	}
	if _, refused := errors.AsType[*tun.RefusedError](err); refused || errors.Is(err, tun.ErrUnwritable) {
		// The interface is down, or the host is short of memory: the device is still good.
		e.drop(DropNICRefused)
		return nil
	}
	return fmt.Errorf("dataplane: %w", err)
}

// passToHost queues a packet for the NIC writer and reports whether there was room.
func (e *Engine) passToHost(p []byte) bool {
	select {
	case e.toNIC <- p:
		return true
	default:
		return false
	}
}

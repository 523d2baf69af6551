package dataplane

import (
	"context"
	"errors"
	"fmt"

	"github.com/aethertunnel/aethertunnel/tun"
)

// readNIC drains the NIC into the queues of the peers.
func (e *Engine) readNIC(ctx context.Context) error {
	batch := e.nic.BatchSize()
	views, sizes := roomFor(batch), make([]int, batch)
	for {
		n, err := e.nic.Read(views, sizes, tun.Headroom)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, tun.ErrUnreadable) {
			e.drop(DropNICUnreadable)
		} else if err != nil {
			return fmt.Errorf("dataplane: %w", err)
		}
		snapshot := e.current.Load()
		for i := range n {
			e.fromNIC(ctx, snapshot, views[i][tun.Headroom:tun.Headroom+sizes[i]])
		}
	}
}

// writeNIC hands received packets to the host, as many at once as are waiting.
func (e *Engine) writeNIC(ctx context.Context) error {
	room := roomFor(writerBatchPackets)
	views := make([][]byte, 0, writerBatchPackets)
	for {
		views = views[:0]
		select {
		case p := <-e.toNIC:
			views = append(views, fill(room[0], p))
		case <-ctx.Done():
			return ctx.Err()
		}
	gather:
		for len(views) < len(room) {
			select {
			case p := <-e.toNIC:
				views = append(views, fill(room[len(views)], p))
			default:
				break gather
			}
		}
		if err := e.nic.Write(views, tun.Headroom); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			refused, ok := errors.AsType[*tun.RefusedError](err)
			if !ok {
				return fmt.Errorf("dataplane: %w", err)
			}
			// The interface is down, or the host is short of memory: the device is still good.
			e.drops[DropNICRefused].Add(uint64(refused.Writes))
		}
	}
}

// roomFor makes buffers that hold any packet: one longer than our MTU, because somebody raised it, or a super-packet
// that the device joins in the first buffer of a flow. They are one piece of memory of which the system backs only
// what is touched.
func roomFor(packets int) [][]byte {
	const size = tun.Headroom + tun.MaxPacketBytes
	all := make([]byte, packets*size)
	room := make([][]byte, packets)
	for i := range room {
		room[i] = all[i*size : (i+1)*size : (i+1)*size]
	}
	return room
}

func fill(room, packet []byte) []byte {
	return room[:tun.Headroom+copy(room[tun.Headroom:], packet)]
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

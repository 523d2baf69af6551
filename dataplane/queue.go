package dataplane

import (
	"fmt"

	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/dataplane/sched"
	"github.com/aethertunnel/aethertunnel/tun"
)

// newQueues makes the pool of all queues in front of peers. Its drops count by reason and give the buffer back.
func (e *Engine) newQueues() *sched.Pool[*buffer] {
	pool, err := sched.NewPool(sched.Config[*buffer]{
		Mark: func(b **buffer) bool { return (*b).mark() },
		Drop: func(b *buffer, why sched.Reason) {
			switch why {
			case sched.DropCleared:
				e.drop(DropNoSession)
			case sched.DropCoDel:
				e.drop(DropQueueDelay)
			default:
				e.drop(DropQueueFull)
			}
			e.buffers.put(b)
		},
	})
	if err != nil {
		panic(fmt.Sprintf("dataplane: %v", err)) // only a change of the constants above can lead here
	}
	return pool
}

// push queues packets for the peer and takes them over, those too for which there is no room. It reports false, and takes
// nothing, when nothing reaches the peer.
func (e *Engine) push(p *peer, batch []*buffer, nowNanos int64) bool {
	e.queueMu.Lock()
	if !p.reachable() {
		e.queueMu.Unlock()
		return false
	}
	for _, b := range batch {
		p.queue.Push(b, b.hash, len(b.packet.Data), nowNanos)
	}
	p.waiting.Store(int64(p.queue.Len()))
	e.queueMu.Unlock()
	if p.lane.Load() == nil {
		p.wakeCarrier()
	}
	return true
}

// wakeCarrier makes the carrier whose turn it is look into the queue.
func (p *peer) wakeCarrier() {
	select {
	case p.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// pop takes up to len(batch) packets from the queue, and not many more than budgetBytes.
func (e *Engine) pop(p *peer, batch []*buffer, budgetBytes int, nowNanos int64) int {
	if p.waiting.Load() == 0 {
		return 0
	}
	e.queueMu.Lock()
	defer e.queueMu.Unlock()
	n := 0
	for n < len(batch) && budgetBytes > 0 {
		b, ok := p.queue.Pop(nowNanos)
		if !ok {
			break
		}
		batch[n] = b
		budgetBytes -= len(b.packet.Data)
		n++
	}
	p.waiting.Store(int64(p.queue.Len()))
	return n
}

// discardUnreachable drops what waits for a peer that nothing reaches any more.
func (e *Engine) discardUnreachable(p *peer) {
	e.queueMu.Lock()
	defer e.queueMu.Unlock()
	if p.reachable() {
		return
	}
	p.queue.Clear(e.now())
	p.waiting.Store(0)
}

// mark has a packet tell its sender of congestion: by ECN, or by the loss of one of its segments. It reports false for
// one that can only be lost itself.
func (b *buffer) mark() bool {
	if packet.SetCE(b.packet.Data) {
		return true
	}
	b.marked = b.packet.Offload.Segmentation != tun.SegmentNone
	return b.marked
}

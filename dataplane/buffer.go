package dataplane

import (
	"sync"
	"sync/atomic"

	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/tun"
)

// bufferBytes are the lengths of packets that buffers are made for: single packets, short super-packets, all others.
var bufferBytes = [...]int{2 << 10, copyBytes, tun.MaxPacketBytes}

// queuedBytes bounds the buffers in use, all queues together: 20 ms of 5 Gbit/s. What arrives beyond that is dropped, as
// at any other full queue.
const queuedBytes = 12 << 20

// buffer holds a packet, or a super-packet, on its way to a peer. Whoever holds it last gives it back.
type buffer struct {
	storage []byte     // tun.Headroom bytes for what stands before the packet, then the packet
	packet  tun.Packet // Data is storage[tun.Headroom:][:n]
	header  packet.Header
	hash    uint32 // of the flow
	class   int    // index in bufferBytes
	marked  bool   // a super-packet whose first segment is to be left out, to tell its sender of congestion
}

func newBuffer(class int) *buffer {
	return &buffer{storage: make([]byte, tun.Headroom+bufferBytes[class]), class: class}
}

// setPacket makes the first n bytes behind the headroom the packet.
func (b *buffer) setPacket(n int, o tun.Offload) {
	b.packet = tun.Packet{Data: b.storage[tun.Headroom : tun.Headroom+n], Offload: o}
}

// framed returns the packet's bytes from from to to, with that many bytes in front of them.
func (b *buffer) framed(from, to, before int) []byte {
	return b.storage[tun.Headroom+from-before : tun.Headroom+to]
}

// buffers hands out buffers of a few sizes, so that many small packets take little memory.
type buffers struct {
	pools [len(bufferBytes)]sync.Pool
	inUse atomic.Int64 // bytes
}

// get returns a buffer for a packet of that many bytes, or nil when too much is in use.
func (p *buffers) get(packetBytes int) *buffer {
	class := 0
	for bufferBytes[class] < packetBytes {
		class++
	}
	size := int64(bufferBytes[class])
	if p.inUse.Add(size) > queuedBytes {
		p.inUse.Add(-size)
		return nil
	}
	if b, ok := p.pools[class].Get().(*buffer); ok {
		return b
	}
	return newBuffer(class)
}

// put takes a buffer back.
func (p *buffers) put(b *buffer) {
	b.packet, b.marked = tun.Packet{}, false
	p.inUse.Add(-int64(bufferBytes[b.class]))
	p.pools[b.class].Put(b)
}

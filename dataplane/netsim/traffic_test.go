package netsim

import "encoding/binary"

// innerPacket is a packet of a node's host.
type innerPacket struct {
	bytes     []byte
	from, to  *node
	at        int64
	delivered int
}

const (
	// mustArriveNanos is more than any packet is under way in a network without loss.
	mustArriveNanos = 2 * second

	innerHeaderBytes = 28
	innerMinBytes    = innerHeaderBytes + 8
)

// newInner makes an IPv4 packet with a UDP datagram that no other packet is like.
func (w *world) newInner(from, to *node, bytes int, ecn byte) *innerPacket {
	bytes = max(bytes, innerMinBytes)
	w.nextID++
	b := make([]byte, bytes)
	b[0], b[1], b[8], b[9] = 0x45, ecn, 64, 17
	binary.BigEndian.PutUint16(b[2:], uint16(bytes))
	src, dst := from.inner.As4(), to.inner.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[10:], ipv4Checksum(b))
	binary.BigEndian.PutUint16(b[20:], uint16(1000+w.nextID%5))
	binary.BigEndian.PutUint16(b[22:], 2000)
	binary.BigEndian.PutUint16(b[24:], uint16(bytes-20))
	binary.BigEndian.PutUint64(b[innerHeaderBytes:], w.nextID)
	for i, x := innerMinBytes, w.nextID*0x9e3779b97f4a7c15; i < bytes; i++ {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	p := &innerPacket{bytes: b, from: from, to: to, at: w.net.Nanos()}
	w.inner[w.nextID] = p
	return p
}

func ipv4Checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		if i != 10 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// sendInner has a node's host send a packet.
func (w *world) sendInner(from, to *node, bytes int, must bool) *innerPacket {
	ecn := byte(0)
	if w.style.ecn {
		ecn = byte(w.rng.IntN(3))
	}
	p := w.newInner(from, to, bytes, ecn)
	if must {
		id := w.nextID
		w.net.After(mustArriveNanos, func() { w.mustHaveArrived(id) })
	}
	from.machine.send(to, append([]byte(nil), p.bytes...))
	return p
}

// mustHaveArrived sees that a network without faults has not lost a packet.
func (w *world) mustHaveArrived(id uint64) {
	if p := w.inner[id]; p.delivered != 1 && w.fault == "" {
		w.failf("packet %d of %d bytes, sent at %.4f from node %d to node %d, was lost in a network that loses nothing",
			id, len(p.bytes), float64(p.at)/1e9, p.from.index, p.to.index)
	}
}

// deliver is told of a packet that a node's host gets.
func (nd *node) deliver(b []byte) {
	w := nd.w
	if len(b) < 20 || b[9] != 17 {
		return // an error for the host
	}
	if len(b) < innerMinBytes {
		w.failf("node %d: got a packet of %d bytes that nobody has sent", nd.index, len(b))
		return
	}
	p := w.inner[binary.BigEndian.Uint64(b[innerHeaderBytes:])]
	if p == nil || p.to != nd {
		w.failf("node %d: got a packet that nobody has sent to it", nd.index)
		return
	}
	want := p.bytes
	if w.style.ecn && b[1]&3 == ce && want[1]&3 != notECT {
		want = append([]byte(nil), want...)
		want[1] |= ce
		binary.BigEndian.PutUint16(want[10:], ipv4Checksum(want))
	}
	if string(b) != string(want) {
		w.failf("node %d: packet %d arrived changed: %d bytes, want %d", nd.index,
			binary.BigEndian.Uint64(b[innerHeaderBytes:]), len(b), len(p.bytes))
		return
	}
	p.delivered++
	w.counts.delivered++
	if p.delivered > 1 {
		w.failf("node %d: packet %d arrived twice", nd.index, binary.BigEndian.Uint64(b[innerHeaderBytes:]))
	}
}

// arrived takes what comes to a node's socket.
func (nd *node) arrived(d *Datagram) {
	if len(d.Payload) > 0 && d.Payload[0]&0x80 != 0 {
		nd.hello(d)
		return
	}
	nd.machine.arrived(d)
}

// traffic has hosts send.
func (w *world) traffic() {
	mean := float64(second) * float64(w.style.burst) / max(w.style.packets, 0.01)
	if w.calm {
		mean = float64(second) // enough to keep lanes alive
	}
	w.net.After(1+w.between(0, int64(2*mean)), w.traffic)
	for _, nd := range w.nodes[1:] {
		for _, way := range [][2]*node{{nd, w.nodes[0]}, {w.nodes[0], nd}} {
			n := 1
			if !w.calm {
				n = 1 + w.rng.IntN(w.style.burst)
			}
			for range n {
				w.sendInner(way[0], way[1], w.innerBytes(way[0], way[1]), w.tap.settled)
			}
		}
	}
}

// innerBytes draws how long a packet is.
func (w *world) innerBytes(from, to *node) int {
	full := from.machine.maxInner(to)
	switch k := w.rng.IntN(8); {
	case k < 3 && full > innerMinBytes:
		return full
	case k == 3:
		return min(1280, w.style.maxInnerBytes)
	case k == 4:
		return innerMinBytes + w.rng.IntN(w.style.maxInnerBytes-innerMinBytes+1)
	}
	return innerMinBytes + w.rng.IntN(200)
}

package dataplane

import (
	"testing"

	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/tun"
)

// idle makes an engine that does not run, with turns for a and b but no loops that empty their queues.
func idle(tb testing.TB) (e *Engine, a, b *attachment) {
	tb.Helper()
	e = New()
	s := gatewaySnapshot(idA, idB)
	s.NICSources = hosts(gw4, gw6)
	if err := e.Apply(s); err != nil {
		tb.Fatal(err)
	}
	ours, _ := newWire(1)
	var err error
	if a, err = e.register(idA, ours); err == nil {
		b, err = e.register(idB, ours)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return e, a, b
}

// bufferOf puts a packet into a buffer, as a reader does.
func (e *Engine) bufferOf(tb testing.TB, p []byte) *buffer {
	return e.bufferWith(tb, tun.Packet{Data: p})
}

func (e *Engine) bufferWith(tb testing.TB, p tun.Packet) *buffer {
	tb.Helper()
	b := e.buffers.get(len(p.Data))
	b.setPacket(copy(b.storage[tun.Headroom:], p.Data), p.Offload)
	var ok bool
	if b.header, ok = packet.Parse(b.packet.Data); !ok {
		tb.Fatalf("no packet: %x", p.Data)
	}
	b.hash = b.header.FlowHash(b.packet.Data, e.seed)
	return b
}

// newReader makes a reader by hand, to be given packets without a NIC.
func (e *Engine) newReader() *reader {
	r := &reader{e: e, sender: e.newSender()}
	for i := range r.buffers {
		r.buffers[i] = newBuffer(len(bufferBytes) - 1)
		r.packets[i].Data = r.buffers[i].storage
	}
	return r
}

// read hands packets to the reader as if the NIC had, and queues them.
func (r *reader) read(packets ...tun.Packet) {
	snapshot := r.e.current.Load()
	for i := range packets {
		n := copy(r.buffers[i].storage[tun.Headroom:], packets[i].Data)
		r.packets[i] = tun.Packet{Data: r.buffers[i].storage[tun.Headroom:][:n], Offload: packets[i].Offload}
		r.take(snapshot, i, r.e.now())
	}
	r.sender.commit(r.e.now())
}

// discard empties a peer's queue.
func (e *Engine) discard(p *peer) (packets int) {
	var batch [1]*buffer
	for e.pop(p, batch[:], 1, e.now()) == 1 {
		e.buffers.put(batch[0])
		packets++
	}
	return packets
}

// TestNoAllocationPerPacket: from the NIC to the queue and out of it, from a carrier to the NIC's queue, and between
// peers, in steady state. What the carrier and the device allocate is theirs.
func TestNoAllocationPerPacket(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget, so buffers are allocated anew")
	}
	e, a, b := idle(t)
	r := e.newReader()
	one := make([]tun.Packet, 1)
	fromNIC := func(p []byte) {
		one[0].Data = p
		r.read(one...)
		if e.discard(a.peer) != 1 {
			t.Error("not queued")
		}
	}
	toNIC := func(p []byte) { e.fromCarrier(a.peer, p); <-e.toNIC }
	between := func(p []byte) {
		p[8] = 64
		e.fromCarrier(a.peer, p)
		if e.discard(b.peer) != 1 {
			t.Error("not queued")
		}
	}
	large := superPacket(tcp4, gw4, a4, 20_000).Data
	for name, c := range map[string]struct {
		packet []byte
		pass   func(p []byte)
	}{
		"from the NIC":        {ip(gw4, a4, "x"), fromNIC},
		"from the NIC, 6":     {ip(gw6, a6, "x"), fromNIC},
		"from the NIC, large": {large, fromNIC},
		"to the NIC":          {ip(a4, gw4, "x"), toNIC},
		"to the NIC, 6":       {ip(a6, gw6, "x"), toNIC},
		"between peers":       {ip(a4, b4, "x"), between},
		"dropped":             {ip(away4, a4, "x"), func(p []byte) { one[0].Data = p; r.read(one...) }},
	} {
		if n := testing.AllocsPerRun(1000, func() { c.pass(c.packet) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	one[0].Data = ip(gw4, b4, "one too many")
	for range 3000 {
		r.read(one...)
	}
	if n := testing.AllocsPerRun(1000, func() { r.read(one...) }); n != 0 {
		t.Errorf("queue full: %v allocations", n)
	}
}

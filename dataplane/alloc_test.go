package dataplane

import (
	"testing"

	"github.com/aethertunnel/aethertunnel/tun"
)

// idle makes an engine that does not run, with turns for a and b but no loops that empty their queues.
func idle(tb testing.TB) (e *Engine, a, b *attachment) {
	tb.Helper()
	e = New(Config{NIC: tun.NewMemory("mem0")})
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

// TestNoAllocationPerPacket: from the NIC to the queue and out of it, from a carrier to the NIC's queue, and between
// peers, in steady state. What the carrier and the device allocate is theirs.
func TestNoAllocationPerPacket(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget, so buffers are allocated anew")
	}
	e, a, b := idle(t)
	queueA, queueB := a.peer.turn.Load().queue, b.peer.turn.Load().queue
	snapshot := e.current.Load()
	fromNIC := func(p []byte) {
		e.fromNIC(t.Context(), snapshot, p)
		e.release(<-queueA)
	}
	for name, c := range map[string]struct {
		packet []byte
		pass   func(p []byte)
	}{
		"from the NIC":    {ip(gw4, a4, "x"), fromNIC},
		"from the NIC, 6": {ip(gw6, a6, "x"), fromNIC},
		"to the NIC":      {ip(a4, gw4, "x"), func(p []byte) { e.fromPeer(a, p); <-e.toNIC }},
		"to the NIC, 6":   {ip(a6, gw6, "x"), func(p []byte) { e.fromPeer(a, p); <-e.toNIC }},
		"between peers":   {ip(a4, b4, "x"), func(p []byte) { p[8] = 64; e.fromPeer(a, p); e.release(<-queueB) }},
		"dropped": {
			ip(away4, a4, "x"), func(p []byte) { e.fromNIC(t.Context(), snapshot, p) },
		},
	} {
		if n := testing.AllocsPerRun(1000, func() { c.pass(c.packet) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	for range peerQueuePackets {
		e.fromNIC(t.Context(), snapshot, ip(gw4, b4, "x"))
	}
	full := ip(gw4, b4, "one too many")
	if n := testing.AllocsPerRun(1000, func() { e.fromNIC(t.Context(), snapshot, full) }); n != 0 {
		t.Errorf("queue full: %v allocations", n)
	}
}

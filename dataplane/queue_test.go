package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aethertunnel/aethertunnel/dataplane/sched"
	"github.com/aethertunnel/aethertunnel/tun"
)

// numbered makes packets of one flow that say which they are.
func numbered(count int) (all [][]byte) {
	for i := range count {
		all = append(all, ip(gw4, a4, fmt.Sprintf("%05d", i)))
	}
	return all
}

func numberOf(p []byte) string { return string(p[28:33]) }

// inOrder sees that the numbers grow.
func inOrder(t *testing.T, packets [][]byte) {
	t.Helper()
	for i := 1; i < len(packets); i++ {
		if numberOf(packets[i-1]) >= numberOf(packets[i]) {
			t.Fatalf("%s came before %s", numberOf(packets[i-1]), numberOf(packets[i]))
		}
	}
}

// TestSlowCarrierLosesAlone: its queue overflows and is counted, the host is never held up, other peers get everything.
func TestSlowCarrierLosesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA, idB))
		congested, theirs := newWire(0)
		gw.attach(idA, congested)
		b := gw.peerAt(idB)
		const packets, toB = 5000, 500
		for i, p := range numbered(packets) {
			if err := gw.nic.Inject(p); err != nil {
				t.Fatal(err)
			}
			if i%(packets/toB) == 0 {
				if err := gw.nic.Inject(ip(gw4, b4, fmt.Sprintf("%05d", i))); err != nil {
					t.Fatal(err)
				}
			}
		}
		got := b.take()
		if len(got) != toB {
			t.Errorf("b got %d packets of %d", len(got), toB)
		}
		inOrder(t, got)
		full := gw.drops()[DropQueueFull.String()]
		if full < packets-2*sched.DefaultLimitPackets {
			t.Errorf("only %d dropped", full)
		}
		kept := theirs.take()
		if uint64(len(kept))+full != packets {
			t.Errorf("%d arrived, %d dropped, of %d", len(kept), full, packets)
		}
		inOrder(t, kept)
		if last := numberOf(kept[len(kept)-1]); last != fmt.Sprintf("%05d", packets-1) {
			t.Errorf("the newest were dropped: the last is %s", last)
		}
		gw.expectDrops(map[Reason]uint64{DropQueueFull: full})
	})
}

// TestStandingQueueIsShortened: a carrier that is slower than its sender loses by CoDel, whose drops begin after one
// interval above the target, and no more than a good part of what it carries.
func TestStandingQueueIsShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA))
		congested, theirs := newWire(0)
		gw.attach(idA, congested)
		const packets, standing = 2000, 200
		all := numbered(packets)
		gw.fromHost(all[:standing]...)
		var got [][]byte
		for _, p := range all[standing:] { // one in, one out, with 200 ms of queue in between
			gw.fromHost(p)
			time.Sleep(time.Millisecond)
			got = append(got, <-theirs.in)
		}
		got = append(got, theirs.take()...)
		dropped := gw.drops()[DropQueueDelay.String()]
		if dropped == 0 || uint64(len(got))+dropped != packets {
			t.Errorf("%d arrived, %d dropped, of %d", len(got), dropped, packets)
		}
		inOrder(t, got)
		gw.expectDrops(map[Reason]uint64{DropQueueDelay: dropped})
	})
}

// TestStandingQueueMarks what can be marked instead of dropping it (RFC 3168).
func TestStandingQueueMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA))
		congested, theirs := newWire(0)
		gw.attach(idA, congested)
		const packets, ect0 = 2000, 2
		capable := kind{bytes: 1340, flags: flagACK, port: 1, ttl: 64, tos: ect0}
		send := func(i int) {
			p := superPacketAt(capable, gw4, a4, uint32(i), 10)
			complete(p.Data, 20, 16)
			gw.fromHost(p.Data)
		}
		marked := 0
		take := func(p []byte) {
			switch {
			case onesSum(p[:20]) != 0xffff:
				t.Errorf("wrong header checksum: %x", p[:20])
			case p[1] == 3:
				marked++
			case p[1] != ect0:
				t.Errorf("ECN %d", p[1])
			}
		}
		for i := range packets {
			send(i)
			if i >= 200 {
				time.Sleep(time.Millisecond)
				take(<-theirs.in)
			}
		}
		for _, p := range theirs.take() {
			take(p)
		}
		if marked == 0 {
			t.Error("none was marked")
		}
		gw.expectDrops(nil)
	})
}

// TestSparseFlowsPassABulkFlow: what sends little does not wait behind what sends much, wherever both come from.
func TestSparseFlowsPassABulkFlow(t *testing.T) {
	t.Run("host", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			gw := start(t, gatewaySnapshot(idA))
			sparseFlowsPassABulkFlow(t, gw, gw4, gw.fromHost)
		})
	})
	t.Run("member", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			gw := start(t, gatewaySnapshot(idA, idB))
			b := gw.peerAt(idB)
			sparseFlowsPassABulkFlow(t, gw, b4, func(packets ...[]byte) { b.send(t, packets...) })
		})
	})
}

func sparseFlowsPassABulkFlow(t *testing.T, gw *node, from netip.Addr, send func(packets ...[]byte)) {
	t.Helper()
	congested, theirs := newWire(0)
	gw.attach(idA, congested)
	const bulk, turn = 500, 100 // more than a new flow may send in its first turn
	for i := range bulk {
		send(ip(from, a4, fmt.Sprintf("%05d", i)))
	}
	for range turn {
		<-theirs.in
		synctest.Wait()
	}
	var want []string
	for i := range 10 { // other ports, so other flows
		p := ip(from, a4, fmt.Sprintf("game%d", i))
		binary.BigEndian.PutUint16(p[20:], uint16(1+i))
		send(p)
		want = append(want, numberOf(p))
	}
	first := make([]string, 0, len(want))
	<-theirs.in // the carrier had it in hand
	for range want {
		first = append(first, numberOf(<-theirs.in))
		synctest.Wait()
	}
	if !slices.Equal(first, want) {
		t.Errorf("first came %q", first)
	}
	if got := theirs.take(); len(got) != bulk-turn-1 {
		t.Errorf("%d of the bulk", len(got))
	}
	gw.expectDrops(nil)
}

// TestQueueIsBoundedInBytes: super-packets count by what they hold, and their buffers are bounded for all peers together.
func TestQueueIsBoundedInBytes(t *testing.T) {
	e, a, b := idle(t)
	r := e.newReader()
	super := superPacket(tcp4, gw4, a4, 60_000)
	packets := []tun.Packet{super, super, super, super, super, super, super, super, super, super}
	const rounds = 20
	for range rounds {
		r.read(packets...)
	}
	most := sched.DefaultLimitBytes / len(super.Data)
	if got := int(a.peer.waiting.Load()); got == 0 || got > most {
		t.Errorf("%d super-packets wait, at most %d may", got, most)
	}
	if got := e.Stats().Drops[DropQueueFull.String()]; got+uint64(a.peer.waiting.Load()) != rounds*10 {
		t.Errorf("%d wait and %d were dropped, of %d", a.peer.waiting.Load(), got, rounds*10)
	}
	// A small packet still finds a buffer where a super-packet does not.
	const small = 2 << 10
	spare := queuedBytes - e.buffers.inUse.Load() - small
	e.buffers.inUse.Add(spare)
	before := e.Stats().Drops[DropQueueFull.String()]
	toB := superPacket(tcp4, gw4, b4, 60_000)
	r.read(toB, superPacket(udp4, gw4, b4, 100))
	if got := e.Stats().Drops[DropQueueFull.String()] - before; got != 1 || b.peer.waiting.Load() != 1 {
		t.Errorf("without large buffers %d dropped, %d wait", got, b.peer.waiting.Load())
	}
	n := e.discard(a.peer)
	e.buffers.inUse.Add(-spare)
	if used := e.buffers.inUse.Load(); n == 0 || used != small {
		t.Errorf("%d bytes in use after %d buffers were given back, want %d", used, n, small)
	}
	r.read(toB)
	if got := e.discard(b.peer); got != 2 {
		t.Errorf("b had %d packets", got)
	}
}

// TestSuperPacketThroughACarrier: it is cut, and each segment's checksum completed, for what knows of neither.
func TestSuperPacketThroughACarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := &node{t: t, nic: tun.NewMemoryWithOffloads("mem0", allOffloads)}
		gw.engine, gw.stop = run(t, gw.nic, gatewaySnapshot(idA))
		a := gw.peerAt(idA)
		for _, p := range append(flowsBetween(gw4, a4, gw6, a6)[0], singles(gw4, a4, gw6, a6)...) {
			want := segments(t, p)
			if err := gw.nic.InjectPacket(tun.Packet{Data: slices.Clone(p.Data), Offload: p.Offload}); err != nil {
				t.Fatal(err)
			}
			if got := a.take(); !equalPackets(got, want...) {
				t.Errorf("%d bytes, %+v: %d packets came, want %d", len(p.Data), p.Offload, len(got), len(want))
			}
		}
		gw.expectDrops(nil)
	})
}

// TestBadOffloads: what the host asks for and the packet does not bear out is dropped and counted.
func TestBadOffloads(t *testing.T) {
	good := superPacket(tcp4, gw4, a4, 5000)
	edit := func(f func(*tun.Packet)) tun.Packet {
		p := tun.Packet{Data: slices.Clone(good.Data), Offload: good.Offload}
		f(&p)
		return p
	}
	for name, p := range map[string]tun.Packet{
		"other protocol": edit(func(p *tun.Packet) { p.Offload.Segmentation = tun.SegmentUDP }),
		"other version":  edit(func(p *tun.Packet) { p.Offload.Segmentation = tun.SegmentTCP6 }),
		"no size":        edit(func(p *tun.Packet) { p.Offload.SegmentBytes = 0 }),
		"other place":    edit(func(p *tun.Packet) { p.Offload.ChecksumStart = 24 }),
		"beyond the end": edit(func(p *tun.Packet) { p.Offload = tun.Offload{PartialChecksum: true, ChecksumStart: 60000} }),
		"in the IP header": edit(func(p *tun.Packet) {
			p.Offload = tun.Offload{PartialChecksum: true, ChecksumStart: 12, ChecksumOffset: 6}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gw := &node{t: t, nic: tun.NewMemoryWithOffloads("mem0", allOffloads)}
				gw.engine, gw.stop = run(t, gw.nic, gatewaySnapshot(idA))
				a := gw.peerAt(idA)
				if err := gw.nic.InjectPacket(p); err != nil {
					t.Fatal(err)
				}
				gw.fromHost(ip(gw4, a4, "good"))
				if got := a.take(); !equalPackets(got, ip(gw4, a4, "good")) {
					t.Errorf("the peer got %x", got)
				}
				gw.expectDrops(map[Reason]uint64{DropOffload: 1})
			})
		})
	}
}

// TestEverySegmentIsCounted: those of a super-packet that the end of a carrier, or its limit, cuts off are accounted for.
func TestEverySegmentIsCounted(t *testing.T) {
	const taken = 3
	for name, c := range map[string]struct {
		fault  error
		reason Reason
	}{
		"the carrier's end": {errWire, DropNoSession},
		"too big":           {&TooBigError{MaxPacketBytes: 1000}, DropTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gw := &node{t: t, nic: tun.NewMemoryWithOffloads("mem0", allOffloads)}
				gw.engine, gw.stop = run(t, gw.nic, gatewaySnapshot(idA))
				sent := 0
				gw.attach(idA, half{func([]byte) error {
					if sent == taken {
						return c.fault
					}
					sent++
					return nil
				}, untilDone})
				p := superPacket(tcp4, gw4, a4, 10*tcp4.bytes)
				if err := gw.nic.InjectPacket(p); err != nil {
					t.Fatal(err)
				}
				gw.expectDrops(map[Reason]uint64{c.reason: 10 - taken})
			})
		})
	}
}

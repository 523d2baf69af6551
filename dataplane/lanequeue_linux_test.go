package dataplane

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/dataplane/sched"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
	"github.com/aethertunnel/aethertunnel/tun"
)

// TestMark: congestion is told by ECN where the packet can, by one segment of a super-packet, or not at all.
func TestMark(t *testing.T) {
	e, _, _ := idle(t)
	capable := tcp4
	capable.tos = uint8(packet.ECT0)
	for name, c := range map[string]struct {
		packet        tun.Packet
		told, segment bool
		ecn           packet.ECN
	}{
		"ECN":            {superPacket(capable, gw4, a4, 10), true, false, packet.CE},
		"ECN, super":     {superPacket(capable, gw4, a4, 10_000), true, false, packet.CE},
		"no ECN":         {superPacket(tcp4, gw4, a4, 10), false, false, packet.NotECT},
		"no ECN, super":  {superPacket(tcp4, gw4, a4, 10_000), true, true, packet.NotECT},
		"no ECN, UDP, 6": {superPacket(udp4, gw6, a6, 10_000), true, true, packet.NotECT},
	} {
		b := e.bufferWith(t, c.packet)
		if told := b.mark(); told != c.told || b.marked != c.segment || packet.ReadECN(b.packet.Data) != c.ecn {
			t.Errorf("%s: told %v, segment %v, ECN %d", name, told, b.marked, packet.ReadECN(b.packet.Data))
		}
		e.buffers.put(b)
		if b.marked {
			t.Errorf("%s: the mark stays with the buffer", name)
		}
	}
}

// TestMarkedSuperPacket: its first segment is left out and counted, all others arrive.
func TestMarkedSuperPacket(t *testing.T) {
	p := superPacket(tcp4, gw4, a4, 20_000)
	want := segments(t, p)[1:]
	t.Run("lane", func(t *testing.T) {
		gw, a, atGateway, _ := pairOf(t, allOffloads, laneConfig{})
		b := gw.engine.bufferWith(t, p)
		b.marked = true
		await(t, "the sealer", func() bool { return atGateway.serving.CompareAndSwap(false, true) })
		s := gw.engine.newSender()
		s.begin(atGateway.Lane, gw.engine.now())
		s.send(b)
		s.end()
		atGateway.serving.Store(false)
		got, _ := a.host(len(want))
		sameFlows(t, got, want)
		gw.expectDrops(map[Reason]uint64{DropQueueDelay: 1})
	})
	t.Run("carrier", func(t *testing.T) {
		e, a, _ := idle(t)
		var got [][]byte
		a.carrier = half{send: func(p []byte) error { got = append(got, bytes.Clone(p)); return nil }}
		b := e.bufferWith(t, p)
		b.marked = true
		if !e.push(a.peer, []*buffer{b}, 0) {
			t.Fatal("not queued")
		}
		out := carrierSender{e: e, a: a}
		if sent, err := out.sendNext(); !sent || err != nil {
			t.Fatalf("%v, %v", sent, err)
		}
		sameFlows(t, got, want)
		if n := e.Stats().Drops[DropQueueDelay.String()]; n != 1 {
			t.Errorf("counted %d", n)
		}
	})
}

// TestSocketQueue: what stands in a socket's queue for too long tells one of its long packets, and no short one.
func TestSocketQueue(t *testing.T) {
	capable := udp4
	capable.tos = uint8(packet.ECT0)
	for name, c := range map[string]struct {
		packet  tun.Packet
		waited  time.Duration
		arrive  int // of 3
		marked  int
		dropped uint64
	}{
		"long":            {superPacket(udp4, a4, gw4, 1300), 20 * time.Millisecond, 2, 0, 1},
		"long, ECN":       {superPacket(capable, a4, gw4, 1300), 20 * time.Millisecond, 3, 1, 0},
		"short":           {superPacket(udp4, a4, gw4, 100), 20 * time.Millisecond, 3, 0, 0},
		"long, no delay":  {superPacket(udp4, a4, gw4, 1300), -time.Hour, 3, 0, 0}, // by a clock that was set back, even
		"short, no delay": {superPacket(udp4, a4, gw4, 100), 0, 3, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStages(t, laneConfig{})
			nic := tun.NewMemoryWithOffloads("mem0", tun.Offloads{VirtioHeader: true})
			s.to.nic = nic
			s.to.engine.nic.Load().Device = nic
			s.to.engine.nic.Load().join = packet.JoinConfig{}
			for i := range 3 {
				sealed := bytes.Clone(s.seal(c.packet))
				s.receiver.messages[i] = udp.Message{
					Data: sealed, SegmentBytes: len(sealed), ArrivedNanos: time.Now().Add(-c.waited).UnixNano(),
				}
			}
			s.receiver.wanted = 3
			s.receiver.queue = sched.Marker{TargetNanos: socketTargetNanos, IntervalNanos: 1}
			if c.waited > 0 {
				s.receiver.queue.Congested(int64(time.Second), s.to.engine.now()-2, true) // as if above the target for long
				s.receiver.queue.IntervalNanos = int64(time.Hour)                         // so that only one is told
			}
			s.receiver.take(3)
			got, _ := s.to.host(c.arrive)
			marked := 0
			for _, p := range got {
				if packet.ReadECN(p) == packet.CE {
					marked++
				}
			}
			if marked != c.marked {
				t.Errorf("%d marked, want %d", marked, c.marked)
			}
			want := map[Reason]uint64{}
			if c.dropped > 0 {
				want[DropQueueDelay] = c.dropped
			}
			s.to.expectDrops(want)
		})
	}
}

// TestLaneOfAnotherSocket: a lane's packets are opened by the receiver of its socket alone, so that an opener has one
// user. What strays to another is dropped: QUIC there would answer it with a stateless reset.
func TestLaneOfAnotherSocket(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	second := openConn(t, loopback4)
	done := make(chan error, 1)
	go func() { done <- gw.engine.Receive(context.Background(), second) }()
	defer func() {
		if err := errors.Join(second.Close(), <-done); err != nil {
			t.Error(err)
		}
	}()
	o := newStranger(gw, idA, laneConfig{})
	to := o.to
	var err error
	if o.to, err = o.conn.NewDestination(second.LocalAddr(), netip.Addr{}, 0); err != nil {
		t.Fatal(err)
	}
	o.send(0, o.inContext0(ip(a4, gw4, "astray")))
	await(t, "it to be dropped", func() bool { return gw.drops()[DropLaneForged.String()] == 1 })
	if n := second.Stats().QUICDatagrams; n != 0 {
		t.Errorf("%d datagrams were passed on", n)
	}
	o.to = to
	o.send(0, o.inContext0(ip(a4, gw4, "home")))
	if got, _ := gw.host(1); !equalPackets(got, ip(a4, gw4, "home")) {
		t.Errorf("got %x", got)
	}
	gw.expectDrops(map[Reason]uint64{DropLaneForged: 1})
}

// TestSnapshotCountsForKnownFlows: the way of a flow is remembered, but not past a snapshot.
func TestSnapshotCountsForKnownFlows(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA, idB), allOffloads, loopback4)
	o := newStranger(gw, idA, laneConfig{})
	for range 3 {
		o.send(0, o.inContext0(ip(a6, gw6, "mine")), o.inContext0(ip(a4, gw4, "mine")))
	}
	gw.host(6)
	moved := gatewaySnapshot(idA, idB)
	moved.NICAddresses = nil
	moved.Peers[0].Prefixes, moved.Peers[1].Prefixes = hosts(a6), hosts(a4, b4)
	if err := gw.engine.Apply(moved); err != nil {
		t.Fatal(err)
	}
	o.send(0, o.inContext0(ip(a4, gw4, "not any more")), o.inContext0(ip(a6, gw6, "still mine")))
	if got, _ := gw.host(1); !equalPackets(got, ip(a6, gw6, "still mine")) {
		t.Errorf("got %x", got)
	}
	gw.expectDrops(map[Reason]uint64{DropSource: 1})
}

// TestKnownFlowOfAnotherPeer: in one batch of packets from two peers, the second may not use the first one's source.
func TestKnownFlowOfAnotherPeer(t *testing.T) {
	s := newStages(t, laneConfig{})
	silent := gatewaySnapshot(idA, idB)
	silent.NICAddresses = nil // nobody is answered here
	if err := s.to.engine.Apply(silent); err != nil {
		t.Fatal(err)
	}
	nic := tun.NewMemoryWithOffloads("mem0", allOffloads)
	s.to.nic = nic
	s.to.engine.nic.Load().Device, s.to.engine.nic.Load().join = nic, packet.JoinConfig{}
	key := newSecrets(t)
	id := key.ids.Next(0)
	key.newEnd(s.to, idB, keyschedule.Server, id, id, s.from.conn.LocalAddr(), laneConfig{})
	sealer, err := lane.NewSealer(lane.SealerConfig{
		Keys: lane.Keys{Key: key.key(0, keyschedule.Client)}, Header: key.header(keyschedule.Client), ID: id, MaxPacketBytes: 2000,
	})
	if err != nil {
		t.Fatal(err)
	}
	p := superPacket(udp4, a4, gw4, 100)
	good := bytes.Clone(s.seal(p))
	frames := append(lane.AppendDatagramHeader(nil, testQuarterStreamID, plainContext), segments(t, p)[0]...)
	forged := make([]byte, len(frames)+lane.OverheadBytes)
	if _, verdict := sealer.Seal(forged, frames); verdict != lane.VerdictOK {
		t.Fatal(verdict)
	}
	again := bytes.Clone(s.seal(p))
	for i, data := range [][]byte{good, forged, again} {
		s.receiver.messages[i] = udp.Message{Data: data, SegmentBytes: len(data)}
	}
	s.receiver.take(3)
	if got, _ := s.to.host(2); len(got) == 2 {
		sameFlows(t, got, [][]byte{segments(t, p)[0], segments(t, p)[0]})
	}
	s.to.expectDrops(map[Reason]uint64{DropSource: 1})
	peers := s.to.engine.Stats().Peers
	if a, b := peers[idA].ReceivedPackets, peers[idB].ReceivedPackets; a != 2 || b != 1 {
		t.Errorf("counted %d of a, %d of b", a, b)
	}
}

// TestSuperPacketForNobody counts and is answered once.
func TestSuperPacketForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := &node{t: t, nic: tun.NewMemoryWithOffloads("mem0", allOffloads)}
		gw.engine, gw.stop = run(t, gw.nic, gatewaySnapshot(idA))
		p := superPacket(tcp4, gw4, a4, 60_000)
		if err := gw.nic.InjectPacket(tun.Packet{Data: bytes.Clone(p.Data), Offload: p.Offload}); err != nil {
			t.Fatal(err)
		}
		isICMP(t, gw.toHost(), icmpError{from: a4, to: gw4, kind: 3, code: 1, about: p.Data})
		gw.expectDrops(map[Reason]uint64{DropNoSession: 1})
	})
}

// TestSuperPacketTooBigForACarrier is answered once.
func TestSuperPacketTooBigForACarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := &node{t: t, nic: tun.NewMemoryWithOffloads("mem0", allOffloads)}
		gw.engine, gw.stop = run(t, gw.nic, gatewaySnapshot(idA))
		ours, theirs := newWire(10)
		ours.maxBytes = 1000
		gw.attach(idA, ours)
		p := superPacket(tcp4, gw4, a4, 60_000)
		if err := gw.nic.InjectPacket(tun.Packet{Data: bytes.Clone(p.Data), Offload: p.Offload}); err != nil {
			t.Fatal(err)
		}
		isICMP(t, gw.toHost(), icmpError{from: a4, to: gw4, kind: 3, code: 4, mtu: 1000, about: segments(t, p)[0]})
		if got := theirs.take(); len(got) != 0 {
			t.Errorf("the peer got %d", len(got))
		}
	})
}

// TestLaneTable: what is added is found until it is removed, by readers that take no lock.
func TestLaneTable(t *testing.T) {
	var table laneTable
	ids, err := lane.NewIDGenerator(bytes.NewReader(make([]byte, 16)))
	if err != nil {
		t.Fatal(err)
	}
	const count = 2000
	all, lanes := make([]lane.ConnectionID, count), make([]*Lane, count)
	var writers sync.WaitGroup
	for i := range all {
		all[i], lanes[i] = ids.Next(byte(i)), &Lane{}
	}
	half := count / 2
	for i := range half {
		table.add(all[i], lanes[i])
	}
	writers.Go(func() {
		for i := half; i < count; i++ {
			table.add(all[i], lanes[i])
		}
	})
	for range 10 {
		for i := range half {
			if table.find(all[i]) != lanes[i] {
				t.Fatalf("%v is not found while others are added", all[i])
			}
		}
	}
	writers.Wait()
	for i := 0; i < count; i += 2 {
		table.remove(all[i])
	}
	for i, id := range all {
		want := lanes[i]
		if i%2 == 0 {
			want = nil
		}
		if got := table.find(id); got != want {
			t.Errorf("%d: found %p, want %p", i, got, want)
		}
	}
}

// TestSocketQueueFoundEmpty: two bursts that each waited are no standing queue, whatever was last in the first of them.
func TestSocketQueueFoundEmpty(t *testing.T) {
	for name, lastBytes := range map[string]int{"long": 1300, "short": 100} {
		t.Run(name, func(t *testing.T) {
			s := newStages(t, laneConfig{})
			s.receiver.queue = sched.Marker{TargetNanos: socketTargetNanos, IntervalNanos: 1}
			for range 2 {
				for i, payloadBytes := range []int{1300, 1300, lastBytes} {
					sealed := bytes.Clone(s.seal(superPacket(udp4, a4, gw4, payloadBytes)))
					s.receiver.messages[i] = udp.Message{
						Data: sealed, SegmentBytes: len(sealed), ArrivedNanos: time.Now().Add(-time.Second).UnixNano(),
					}
				}
				s.receiver.wanted = udp.MaxBatch // more than came: nothing was left
				s.receiver.take(3)
			}
			s.to.expectDrops(nil)
		})
	}
}

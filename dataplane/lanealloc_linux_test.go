package dataplane

import (
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/dataplane/sched"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
	"github.com/aethertunnel/aethertunnel/tun"
)

// sink is a NIC whose host takes everything and keeps nothing.
type sink struct {
	*tun.Memory
	packets, bytes int
}

func (s *sink) WritePacket(pieces [][]byte, _ tun.Offload) error {
	s.packets++
	for _, p := range pieces {
		s.bytes += len(p)
	}
	return nil
}

// stages are two engines that do not run, with a lane between them, so that one goroutine can take the way of a packet
// step by step.
type stages struct {
	tb             testing.TB
	from, to       *laneNode
	reader         *reader
	receiver       *receiver
	sink           *sink
	lane, far      *laneEnd // of the sending engine, and of the receiving one
	key            *secrets
	one            []tun.Packet
	message        udp.Message
	scratch, bytes []byte
}

// newStages makes a member that sends and a gateway that receives.
func newStages(tb testing.TB, cfg laneConfig) *stages {
	tb.Helper()
	s := &stages{tb: tb, key: newSecrets(tb), one: make([]tun.Packet, 1), scratch: make([]byte, udp.MaxReceiveBytes)}
	s.from, s.to = s.node(memberSnapshot(a4, a6)), s.node(gatewaySnapshot(idA, idB))
	s.sink = &sink{Memory: tun.NewMemoryWithOffloads("mem0", allOffloads)}
	join := packet.JoinConfig{TCP: true, UDP: true, VerifyFull: true, Seed: s.to.engine.seed}
	s.to.engine.nic.Store(&nic{Device: s.sink, join: join})
	idFrom, idTo := s.key.ids.Next(0), s.key.ids.Next(0)
	s.lane = s.key.newEnd(s.from, gateway, keyschedule.Client, idFrom, idTo, s.to.conn.LocalAddr(), cfg)
	s.far = s.key.newEnd(s.to, idA, keyschedule.Server, idTo, idFrom, s.from.conn.LocalAddr(), cfg)
	s.lane.everOpened.Store(true) // as if the gateway had been heard
	if err := s.lane.Seal(0, s.key.key(0, keyschedule.Client)); err != nil {
		tb.Fatal(err)
	}
	s.reader = s.from.engine.newReader()
	s.receiver = &receiver{
		e: s.to.engine, conn: s.to.conn, inbound: inbound{e: s.to.engine, sender: s.to.engine.newSender()},
		queue: sched.Marker{TargetNanos: socketTargetNanos, IntervalNanos: socketIntervalNanos}, wanted: udp.MaxBatch,
	}
	for i := range s.receiver.messages {
		s.receiver.messages[i].Data = make([]byte, udp.MaxReceiveBytes)
	}
	return s
}

func (s *stages) node(snapshot Snapshot) *laneNode {
	n := &laneNode{t: s.tb, engine: New(), conn: openConn(s.tb, loopback4)}
	s.tb.Cleanup(func() {
		if err := n.conn.Close(); err != nil {
			s.tb.Error(err)
		}
	})
	if err := n.engine.Apply(snapshot); err != nil {
		s.tb.Fatal(err)
	}
	return n
}

// read is the first stage: the NIC's packet is routed and queued.
func (s *stages) read(p tun.Packet) {
	s.one[0] = p
	s.reader.read(s.one...)
}

// send is the second: the queue is sealed and sent.
func (s *stages) send() {
	for s.reader.sender.serve(s.from.engine.now()) {
	}
}

// receive is the third: datagrams are received, opened, joined and written, until that many bytes have been.
func (s *stages) receive(bytes int) {
	for s.sink.bytes = 0; s.sink.bytes < bytes; {
		for i := range s.to.engine.drops { // not by Stats, which allocates
			if s.to.engine.drops[i].Load() > 0 {
				s.tb.Fatalf("dropped %v", s.to.drops())
			}
		}
		n, err := s.receiver.conn.Receive(s.receiver.messages[:])
		if err != nil {
			s.tb.Fatal(err)
		}
		s.receiver.take(n)
	}
}

// take is receive for that many datagrams, whatever becomes of them.
func (s *stages) take(datagrams uint64) {
	for until := s.to.conn.Stats().ReceivedDatagrams + datagrams; s.to.conn.Stats().ReceivedDatagrams < until; {
		n, err := s.receiver.conn.Receive(s.receiver.messages[:])
		if err != nil {
			s.tb.Fatal(err)
		}
		s.receiver.take(n)
	}
}

// TestNoAllocationInALane: from the reader to the socket, and from the socket to the NIC.
func TestNoAllocationInALane(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget, so buffers are allocated anew")
	}
	syn := tcp4
	syn.flags = flagSYN
	for name, p := range map[string]tun.Packet{
		"TCP, IPv4":     superPacket(tcp4, a4, gw4, 60_000),
		"TCP, IPv6":     superPacket(tcp6, a6, gw6, 60_000),
		"UDP":           superPacket(udp4, a4, gw4, 60_000),
		"one":           superPacket(udp4, a6, gw6, 64),
		"full checksum": {Data: segments(t, superPacket(udp4, a4, gw4, 64))[0]},
		"SYN":           superPacket(syn, a4, gw4, 0),
	} {
		for context, cfg := range map[string]laneConfig{"partial": {}, "complete": {noPartial: true}} {
			t.Run(name+", "+context, func(t *testing.T) {
				s := newStages(t, cfg)
				pass := func() {
					s.read(p)
					s.send()
					s.receive(len(p.Data)) // more where it is joined to several super-packets, never less
				}
				if n := testing.AllocsPerRun(500, pass); n != 0 {
					t.Errorf("%v allocations", n)
				}
				for _, e := range []*Engine{s.from.engine, s.to.engine} {
					for reason, count := range e.Stats().Drops {
						if count != 0 {
							t.Errorf("%s: %d", reason, count)
						}
					}
				}
			})
		}
	}
}

// TestNoAllocationAtTheHub: from one member's lane to another member's.
func TestNoAllocationAtTheHub(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget, so buffers are allocated anew")
	}
	s := newStages(t, laneConfig{})
	third := s.node(memberSnapshot(b4, b6))
	key := newSecrets(t)
	at := key.newEnd(s.to, idB, keyschedule.Client, key.ids.Next(0), key.ids.Next(0), third.conn.LocalAddr(), laneConfig{})
	at.everOpened.Store(true)
	if err := at.Seal(0, key.key(0, keyschedule.Client)); err != nil {
		t.Fatal(err)
	}
	messages := make([]udp.Message, 8)
	for i := range messages {
		messages[i].Data = make([]byte, udp.MaxReceiveBytes)
	}
	p := superPacket(tcp4, a4, b4, 30*tcp4.bytes)
	pass := func() {
		s.read(p)
		s.send()
		forwarded := s.to.conn.Stats().SentDatagrams + 30
		for s.to.conn.Stats().SentDatagrams < forwarded {
			n, err := s.receiver.conn.Receive(s.receiver.messages[:])
			if err != nil {
				t.Fatal(err)
			}
			s.receiver.take(n)
		}
		for got := 0; got < 30; {
			n, err := third.conn.Receive(messages)
			if err != nil {
				t.Fatal(err)
			}
			for i := range messages[:n] {
				got += messages[i].Datagrams()
			}
		}
	}
	if n := testing.AllocsPerRun(200, pass); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := s.sink.packets; n != 0 {
		t.Errorf("the gateway's host got %d packets", n)
	}
}

// TestNoAllocationForBadPackets: what strangers send costs no memory.
func TestNoAllocationForBadPackets(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget, so buffers are allocated anew")
	}
	s := newStages(t, laneConfig{})
	sealed := s.seal(superPacket(udp4, a4, gw4, 100))
	s.message = udp.Message{Data: s.scratch[:copy(s.scratch, sealed)], SegmentBytes: len(sealed)}
	pass := func() {
		copy(s.scratch, sealed)
		s.open()
	}
	pass() // the first is a good one
	if n := testing.AllocsPerRun(500, pass); n != 0 {
		t.Errorf("replayed: %v allocations", n)
	}
	sealed[30] ^= 1
	if n := testing.AllocsPerRun(500, pass); n != 0 {
		t.Errorf("forged: %v allocations", n)
	}
	d := s.to.engine.Stats().Drops
	if d[DropLaneReplayed.String()] < 500 || d[DropLaneForged.String()] < 500 {
		t.Errorf("dropped %v", d)
	}
}

// seal is the second stage without the socket: it returns the sealed packets of a packet, of one length but for the last.
func (s *stages) seal(p tun.Packet) []byte {
	b := s.from.engine.bufferWith(s.tb, p)
	w := s.reader.sender
	w.begin(s.lane.Lane, s.from.engine.now())
	w.send(b)
	s.from.engine.buffers.put(b)
	s.bytes = append(s.bytes[:0], w.out[:w.used]...)
	w.used, w.n, w.open = 0, 0, false
	w.end()
	return s.bytes
}

// open is the third stage without the socket.
func (s *stages) open() {
	r, now := s.receiver, s.to.engine.now()
	r.inbound.begin(now)
	if err := r.message(&s.message, now); err != nil {
		s.tb.Fatal(err)
	}
	r.leave()
	if err := r.inbound.end(); err != nil {
		s.tb.Fatal(err)
	}
}

package dataplane

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
)

// inContext0 is a lane packet as it should be.
func (o *stranger) inContext0(p []byte) []byte {
	return o.datagram(p, testQuarterStreamID, plainContext)
}

// TestBadLanePackets: each is counted and changes nothing; the lane goes on.
func TestBadLanePackets(t *testing.T) {
	good := ip(a4, gw4, "good")
	partial := superPacket(udp4, a4, gw4, 50).Data
	icmp := ip(a4, gw4, "no checksum of TCP or UDP")
	icmp[9], icmp[10], icmp[11] = 1, 0, 0
	binary.BigEndian.PutUint16(icmp[10:], ^onesSum(icmp[:20]))
	for name, c := range map[string]struct {
		make func(o *stranger) [][]byte // the first is as it should be where more than one is made
		want map[Reason]uint64
		good int // how many of them get through
	}{
		"forged": {func(o *stranger) [][]byte {
			p := o.inContext0(good)
			p[len(p)-1] ^= 1
			return [][]byte{p}
		}, map[Reason]uint64{DropLaneForged: 1}, 0},
		"every bit flipped once": {func(o *stranger) (all [][]byte) {
			p := o.inContext0(good)
			for bit := range len(p) * 8 {
				if bit/8 >= 1 && bit/8 <= 8 || bit == 7 || bit == 6 { // another connection, or none of ours
					continue
				}
				q := bytes.Clone(p)
				q[bit/8] ^= 1 << (bit % 8)
				all = append(all, q)
			}
			return all
		}, map[Reason]uint64{DropLaneForged: uint64((lane.OverheadBytes+3+len(good))*8 - 66)}, 0},
		"truncated": {func(o *stranger) (all [][]byte) {
			p := o.inContext0(good)
			for n := lane.MinPacketBytes; n < len(p); n++ {
				all = append(all, p[:n])
			}
			return all
		}, map[Reason]uint64{DropLaneForged: uint64(lane.OverheadBytes + 3 + len(good) - lane.MinPacketBytes)}, 0},
		"garbage for the lane": {func(o *stranger) (all [][]byte) {
			for n := lane.MinPacketBytes; n < 1400; n++ {
				p := make([]byte, n)
				_, _ = rand.Read(p)
				p[0] = p[0]&0x3f | 0x40
				copy(p[1:], o.end.id[:])
				all = append(all, p)
			}
			return all
		}, map[Reason]uint64{DropLaneForged: uint64(1400 - lane.MinPacketBytes)}, 0},
		"replayed": {func(o *stranger) [][]byte {
			p := o.inContext0(good)
			return [][]byte{p, bytes.Clone(p), bytes.Clone(p)}
		}, map[Reason]uint64{DropLaneReplayed: 2}, 1},
		"of another key": {func(o *stranger) [][]byte {
			other := *o
			other.secret = newSecrets(o.t)
			var err error
			other.sealer, err = lane.NewSealer(lane.SealerConfig{
				Keys: lane.Keys{Key: other.secret.key(0, 0)}, Header: other.secret.header(0), ID: o.end.id, MaxPacketBytes: 2000,
			})
			if err != nil {
				o.t.Fatal(err)
			}
			return [][]byte{other.inContext0(good)}
		}, map[Reason]uint64{DropLaneForged: 1}, 0},
		"a context that nobody registered": {func(o *stranger) [][]byte {
			return [][]byte{o.datagram(good, testQuarterStreamID, 9), o.datagram(partial, testQuarterStreamID, clientPartial)}
		}, map[Reason]uint64{DropLaneFrames: 2}, 0},
		"another stream": {func(o *stranger) [][]byte {
			return [][]byte{o.datagram(good, testQuarterStreamID+1, 0), o.datagram(good, 0, 0)}
		}, map[Reason]uint64{DropLaneFrames: 2}, 0},
		"unknown frames": {func(o *stranger) [][]byte {
			return [][]byte{o.seal(bytes.Repeat([]byte{0x08}, 30)), o.seal([]byte{0x30, testQuarterStreamID, 0}), o.seal(make([]byte, 1200))}
		}, map[Reason]uint64{DropLaneFrames: 2}, 0}, // padding is well formed
		"a partial checksum of ICMP": {func(o *stranger) [][]byte {
			return [][]byte{o.datagram(icmp, testQuarterStreamID, serverPartial)}
		}, map[Reason]uint64{DropOffload: 1}, 0},
		"no IP packet": {func(o *stranger) [][]byte {
			return [][]byte{
				o.inContext0([]byte("garbage")), o.inContext0(good[:27]), o.inContext0(append(bytes.Clone(good), 0)),
				o.inContext0([]byte{0x45}), o.inContext0([]byte{0x60}),
			}
		}, map[Reason]uint64{DropMalformed: 5}, 0},
		"no IP packet after a good one": {func(o *stranger) [][]byte {
			short := bytes.Clone(good[:20])
			short[0] = 0x46
			binary.BigEndian.PutUint16(short[2:], 20)
			return [][]byte{
				o.inContext0(good), o.inContext0(good[:27]), o.inContext0(append(bytes.Clone(good), 0)),
				o.inContext0(good[:20]), o.inContext0(short), o.inContext0(good[:1]),
			}
		}, map[Reason]uint64{DropMalformed: 5}, 1},
		"of others": {func(o *stranger) [][]byte {
			return [][]byte{
				o.inContext0(ip(b4, gw4, "q")), o.inContext0(ip(gw4, gw4, "q")), o.inContext0(ip(away6, gw6, "q")),
			}
		}, map[Reason]uint64{DropSource: 3}, 0},
		"of others after a good one": {func(o *stranger) [][]byte {
			return [][]byte{o.inContext0(good), o.inContext0(ip(b4, gw4, "q")), o.inContext0(ip(a6, gw6, "fine"))}
		}, map[Reason]uint64{DropSource: 1}, 2},
		"to nobody":   {func(o *stranger) [][]byte { return [][]byte{o.inContext0(ip(a4, away4, "q"))} }, map[Reason]uint64{DropNoRoute: 1}, 0},
		"to itself":   {func(o *stranger) [][]byte { return [][]byte{o.inContext0(ip(a4, a4, "q"))} }, map[Reason]uint64{DropNoRoute: 1}, 0},
		"to one away": {func(o *stranger) [][]byte { return [][]byte{o.inContext0(ip(a4, b4, "q"))} }, map[Reason]uint64{DropNoSession: 1}, 0},
		"not forwardable": {func(o *stranger) [][]byte {
			return [][]byte{o.inContext0(ip(a4, group4, "q")), o.inContext0(ip(link6, gw6, "q"))}
		}, map[Reason]uint64{DropNotForwardable: 2}, 0},
		"hops used up": {func(o *stranger) [][]byte {
			return [][]byte{o.inContext0(ipHops(a4, b4, 1, nil)), o.inContext0(ipHops(a6, b6, 0, nil))}
		}, map[Reason]uint64{DropHopLimit: 2}, 0},
		"hops used up after a good one": {func(o *stranger) [][]byte {
			return [][]byte{o.inContext0(ipHops(a4, b4, 2, nil)), o.inContext0(ipHops(a4, b4, 1, nil))}
		}, map[Reason]uint64{DropHopLimit: 1, DropNoSession: 1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := gatewaySnapshot(idA, idB)
			s.NICAddresses = nil // nobody is answered here
			gw := startLanes(t, s, allOffloads, loopback4)
			o := newStranger(gw, idA, laneConfig{})
			for _, p := range c.make(o) {
				o.send(0, p)
			}
			o.send(0, o.inContext0(ip(a4, gw4, "the last")))
			got, _ := gw.host(c.good + 1)
			if last := got[len(got)-1]; !equalPackets([][]byte{last}, ip(a4, gw4, "the last")) {
				t.Errorf("the last is %x", last)
			}
			gw.expectDrops(c.want)
			if n := gw.conn.Stats().QUICDatagrams; n != 0 {
				t.Errorf("QUIC was given %d", n)
			}
			if len(gw.nic.Packets()) != 0 {
				t.Errorf("the host got more: %x", (<-gw.nic.Packets()).Data)
			}
		})
	}
}

// TestForgedPacketsMoveNothing: not the highest number, not the epoch.
func TestForgedPacketsMoveNothing(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	o := newStranger(gw, idA, laneConfig{})
	await(t, "the first packet", func() bool { _, opened := o.end.Progress(); return opened == 1 })
	for range 100 {
		p := o.inContext0(ip(a4, gw4, "skipped"))
		p[20] ^= 4
		o.send(0, p)
	}
	gw.expectDrops(map[Reason]uint64{DropLaneForged: 100})
	if _, opened := o.end.Progress(); opened != 1 {
		t.Errorf("opened up to %d", opened)
	}
	if len(o.end.opened) != 0 {
		t.Error("an epoch was reported")
	}
}

// TestOtherDatagramsAreForQUIC: whatever is no packet of a lane that is here, unchanged and in order.
func TestOtherDatagramsAreForQUIC(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	o := newStranger(gw, idA, laneConfig{})
	lanePacket := o.inContext0(ip(a4, gw4, "in between"))
	long := bytes.Clone(lanePacket)
	long[0] |= 0x80
	unfixed := bytes.Clone(lanePacket)
	unfixed[0] &^= 0x40
	other := bytes.Clone(lanePacket)
	other[8] ^= 1 // another connection ID of the same shard or another
	other1 := bytes.Clone(lanePacket)
	other1[1] ^= 1
	keyless := o.secret.ids.Next(0) // of a lane that has no keys yet
	l, err := gw.engine.NewLane(LaneConfig{
		Peer: idA, Conn: gw.conn, To: o.to, Params: o.secret.params(0, keyless, true), PacketBytes: 1400,
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Issue(keyless)
	early := bytes.Clone(lanePacket)
	copy(early[1:], keyless[:])
	retired := o.secret.ids.Next(0)
	o.end.Issue(retired)
	o.end.Retire(retired)
	gone := bytes.Clone(lanePacket)
	copy(gone[1:], retired[:])
	want := [][]byte{
		long, unfixed, other, other1, gone, []byte("x"), lanePacket[:lane.MinPacketBytes-1], make([]byte, 1200),
	}
	o.send(0, lanePacket)
	o.send(0, early) // ours, though nobody can open it
	for _, p := range want {
		o.send(0, p)
	}
	quic := gw.conn.QUIC()
	if err := quic.SetReadDeadline(time.Now().Add(hang)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	for i, p := range want {
		n, from, err := quic.ReadFrom(buf)
		if err != nil || !bytes.Equal(buf[:n], p) || from.String() != o.conn.LocalAddr().String() {
			t.Errorf("datagram %d: %x from %v, %v; want %x", i, buf[:n], from, err, p)
		}
	}
	gw.host(1)
	gw.expectDrops(map[Reason]uint64{DropLaneForged: 1})
}

// TestLaneAnswersErrors: to the peer that the packet came from, by the lane.
func TestLaneAnswersErrors(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA, idB), allOffloads, loopback4)
	o := newStranger(gw, idA, laneConfig{})
	for name, c := range map[string]struct {
		packet []byte
		want   icmpError
	}{
		"source":     {ip(b4, gw4, "q"), icmpError{from: gw4, to: b4, kind: 3, code: 13, about: ip(b4, gw4, "q")}},
		"no route":   {ip(a6, away6, "q"), icmpError{from: gw6, to: a6, kind: 1, code: 0, about: ip(a6, away6, "q")}},
		"hop limit":  {ipHops(a4, b4, 1, nil), icmpError{from: gw4, to: a4, kind: 11, code: 0, about: ipHops(a4, b4, 1, nil)}},
		"no session": {ip(a4, b4, "q"), icmpError{from: gw4, to: a4, kind: 3, code: 1, about: ipHops(a4, b4, 63, []byte("q"))}},
	} {
		o.send(0, o.inContext0(c.packet))
		got := o.receive(1)[0]
		t.Log(name)
		isICMP(t, [][]byte{got.Payload}, c.want)
		if got.ContextID != plainContext {
			t.Errorf("context %d", got.ContextID)
		}
	}
}

// TestPingIsAnswered with a report of what has come, and a challenge with its response.
func TestPingIsAnswered(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	o := newStranger(gw, idA, laneConfig{})
	data := lane.PathData{1, 2, 3, 4, 5, 6, 7, 8}
	o.send(uint8(packet.CE), o.seal(append(lane.AppendPing(nil), lane.AppendPathChallenge(nil, data)...)))
	var report, response bool
	for until := time.Now().Add(hang); !(report && response) && time.Now().Before(until); {
		for _, f := range o.frames() {
			// It may be a report of the batch before, which lacks the packet that asked.
			if f.Set.Has(lane.HasReport) && f.Report.Highest >= 1 && f.Report.Received == f.Report.Highest+1 && f.Report.CE == 1 {
				report = true
			}
			if f.Set.Has(lane.HasPathResponse) && f.Response == data {
				response = true
			}
			if f.Set.Has(lane.HasPing) {
				o.send(0, o.seal(lane.AppendPadding(nil, 20))) // or the engine takes us for dead
			}
		}
	}
	if !report || !response {
		t.Errorf("reported: %v, answered: %v", report, response)
	}
	gw.expectDrops(nil)
}

// TestControlIsBounded: a peer that asks and asks makes no queue of answers.
func TestControlIsBounded(t *testing.T) {
	e, _, _ := idle(t)
	l := &Lane{engine: e, peer: e.peers[idA], path: &lanePath{}}
	for range 1000 {
		l.Ping()
	}
	if len(l.control) != maxControl {
		t.Errorf("%d packets wait", len(l.control))
	}
	if len(e.kicks.lanes) != 1 {
		t.Errorf("%d kicks", len(e.kicks.lanes))
	}
	l.Close()
	l.Ping()
	if len(l.control) != 0 {
		t.Error("a closed lane speaks")
	}
}

// TestLaneECN: the outer field is the inner one's on the way out, and on the way in the two are combined as RFC 6040 says.
func TestLaneECN(t *testing.T) {
	const notECT, ect1, ect0, ce = 0, 1, 2, 3
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	o := newStranger(gw, idA, laneConfig{})
	marked := func(from, to netip.Addr, ecn byte, payloadBytes int) []byte {
		k := tcp4
		k.tos, k.port = 0x20|ecn, uint16(ecn)+1
		p := superPacket(k, from, to, payloadBytes)
		return segments(t, p)[0]
	}
	t.Run("out", func(t *testing.T) {
		for _, to := range [][2]netip.Addr{{gw4, a4}, {gw6, a6}} {
			for _, ecn := range []byte{notECT, ect0, ect1, ce} {
				k := tcp4
				k.tos, k.port = ecn, 100+uint16(ecn)
				gw.inject(superPacket(k, to[0], to[1], 3000))
			}
			for _, d := range o.receive(4 * 3) {
				if inner := packet.ReadECN(d.Payload); uint8(inner) != d.ecn {
					t.Errorf("inner %d, outer %d", inner, d.ecn)
				}
			}
		}
	})
	t.Run("out, in one batch", func(t *testing.T) {
		await(t, "the sealer", func() bool { return o.end.serving.CompareAndSwap(false, true) })
		s := gw.engine.newSender()
		s.begin(o.end.Lane, gw.engine.now())
		for _, ecn := range []byte{ect0, ect0, ce, ce, notECT, ect1, ect0} {
			b := gw.engine.bufferOf(t, marked(gw4, a4, ecn, 1000))
			s.send(b)
			gw.engine.buffers.put(b)
		}
		s.end()
		s.lane, s.sealer = nil, nil
		o.end.serving.Store(false)
		for _, d := range o.receive(7) {
			if inner := packet.ReadECN(d.Payload); uint8(inner) != d.ecn {
				t.Errorf("inner %d, outer %d", inner, d.ecn)
			}
		}
	})
	t.Run("in", func(t *testing.T) {
		drops := uint64(0)
		for _, c := range []struct{ inner, outer, want byte }{
			{notECT, notECT, notECT},
			{notECT, ect0, notECT},
			{notECT, ect1, notECT},
			{ect0, notECT, ect0},
			{ect0, ect0, ect0},
			{ect0, ect1, ect1},
			{ect0, ce, ce},
			{ect1, notECT, ect1},
			{ect1, ect0, ect1},
			{ect1, ect1, ect1},
			{ect1, ce, ce},
			{ce, notECT, ce},
			{ce, ect0, ce},
			{ce, ect1, ce},
			{ce, ce, ce},
		} {
			for _, to := range [][2]netip.Addr{{a4, gw4}, {a6, gw6}} {
				p := marked(to[0], to[1], c.inner, 10)
				o.send(c.outer, o.inContext0(p))
				if got, _ := gw.host(1); !sameButECN(got[0], p, c.want) {
					t.Errorf("inner %d, outer %d: got %x, want %d", c.inner, c.outer, got[0], c.want)
				}
			}
		}
		for _, to := range [][2]netip.Addr{{a4, gw4}, {a6, gw6}} {
			o.send(ce, o.inContext0(marked(to[0], to[1], notECT, 10)))
			drops++
		}
		gw.expectDrops(map[Reason]uint64{DropCongestion: drops})
	})
	t.Run("not joined", func(t *testing.T) {
		k := tcp4
		k.tos = ect0
		all := segments(t, superPacket(k, a4, gw4, 4*tcp4.bytes))
		o.send(ect0, o.inContext0(all[0]), o.inContext0(all[1]))
		o.send(ce, o.inContext0(all[2]), o.inContext0(all[3]))
		got, _ := gw.host(4)
		for i, p := range got {
			if want := packet.ECN([]byte{ect0, ect0, ce, ce}[i]); packet.ReadECN(p) != want {
				t.Errorf("segment %d has %d, want %d", i, packet.ReadECN(p), want)
			}
		}
	})
}

// sameButECN compares a packet with another that has this codepoint instead of its own.
func sameButECN(got, p []byte, ecn byte) bool {
	want := slices.Clone(p)
	if want[0]>>4 == 6 {
		want[1] = want[1]&^0x30 | ecn<<4
	} else {
		want[1] = want[1]&^3 | ecn
		want[10], want[11] = 0, 0
		binary.BigEndian.PutUint16(want[10:], ^onesSum(want[:20]))
	}
	return bytes.Equal(got, want)
}

package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/aethertunnel/aethertunnel/tun"
)

// flowsBetween are rounds of super-packets of all kinds, the flows interleaved, the last with a shorter end. A round is
// little enough for every queue on the way.
func flowsBetween(from4, to4, from6, to6 netip.Addr) (rounds [][]tun.Packet) {
	udpOdd := kind{udp: true, bytes: 7, port: 2000, ttl: 64} // segments shorter than their headers
	tcpShort := kind{bytes: 10, flags: flagACK, port: 2001, ttl: 3}
	last := kind{bytes: 1340, flags: flagACK | flagPSH | flagFIN | flagCWR, port: 2002, ttl: 64, id: 0xfff0}
	at := uint32(0)
	for range 3 {
		rounds = append(rounds, []tun.Packet{
			superPacketAt(tcp4, from4, to4, at, 48*tcp4.bytes), superPacketAt(tcp6, from6, to6, at, 47*tcp6.bytes),
			superPacketAt(udp4, from4, to4, at, 20*udp4.bytes), superPacketAt(udp4, from6, to6, at, 21*udp4.bytes),
			superPacketAt(udpOdd, from6, to6, at, 60*7+3), superPacketAt(tcpShort, from4, to4, at, 63*10+1),
		})
		at += 1 << 16
	}
	rounds = append(rounds, []tun.Packet{superPacket(last, from4, to4, 5*1340+1), superPacketAt(tcp4, from4, to4, at, 1)})
	if !raceEnabled {
		return rounds
	}
	var singly [][]tun.Packet // the detector makes everything so slow that a socket's queue would stand for too long
	for _, round := range rounds {
		for _, p := range round {
			singly = append(singly, []tun.Packet{p})
		}
	}
	return singly
}

// flowKey names the flow of a packet of superPacket's making.
func flowKey(p []byte) string {
	from, to := addressesOf(p)
	at, protocol := int(p[0]&15)*4, p[9]
	if p[0]>>4 == 6 {
		at, protocol = 40, p[6]
	}
	return fmt.Sprint(from, to, protocol, binary.BigEndian.Uint32(p[at:]))
}

// byFlow sorts packets by flow, in their order.
func byFlow(packets [][]byte) map[string][][]byte {
	out := map[string][][]byte{}
	for _, p := range packets {
		out[flowKey(p)] = append(out[flowKey(p)], p)
	}
	return out
}

// sameFlows compares what was sent with what arrived, byte for byte, each flow in order.
func sameFlows(t *testing.T, got, want [][]byte) {
	t.Helper()
	g, w := byFlow(got), byFlow(want)
	for flow := range g {
		if w[flow] == nil {
			t.Errorf("%s: nobody has sent it", flow)
		}
	}
	for flow, packets := range w {
		if equalPackets(g[flow], packets...) {
			continue
		}
		t.Errorf("%s: %d segments arrived of %d", flow, len(g[flow]), len(packets))
		for i := range min(len(packets), len(g[flow])) {
			if a, b := g[flow][i], packets[i]; !equalPackets([][]byte{a}, b) {
				t.Fatalf("%s: segment %d is %d bytes %x, want %d bytes %x", flow, i,
					len(a), a[:min(len(a), 60)], len(b), b[:min(len(b), 60)])
			}
		}
	}
}

// allSegments is what packets are when a network card has cut them.
func allSegments(t testing.TB, packets []tun.Packet) (all [][]byte) {
	t.Helper()
	for _, p := range packets {
		all = append(all, segments(t, p)...)
	}
	return all
}

// TestLaneCarriesSuperPackets: they are cut at one end and joined at the other, and every byte and checksum of every
// segment is what a network card would have made of them.
func TestLaneCarriesSuperPackets(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  laneConfig
		to   tun.Offloads // of the NIC that they arrive at
		bind netip.AddrPort
	}{
		"partial checksums":         {laneConfig{}, allOffloads, loopback4},
		"partial checksums, IPv6":   {laneConfig{}, allOffloads, loopback6},
		"complete checksums":        {laneConfig{noPartial: true}, allOffloads, loopback4},
		"to a NIC without UDP":      {laneConfig{}, tun.Offloads{VirtioHeader: true, TCP: true}, loopback4},
		"to a NIC of checksums":     {laneConfig{}, tun.Offloads{VirtioHeader: true}, loopback4},
		"to a NIC of nothing":       {laneConfig{}, tun.Offloads{}, loopback4},
		"to a NIC, all is complete": {laneConfig{noPartial: true}, tun.Offloads{}, loopback4},
	} {
		t.Run(name, func(t *testing.T) {
			gw := startLanes(t, gatewaySnapshot(idA), c.to, c.bind)
			a := startLanes(t, memberSnapshot(a4, a6), allOffloads, c.bind)
			atA, atGateway, _ := connectLanes(a, gw, gateway, idA, c.cfg)
			var want [][]byte
			joined := 0
			for _, packets := range flowsBetween(a4, gw4, a6, gw6) {
				sent := allSegments(t, packets)
				a.inject(packets...)
				got, of := gw.host(len(sent))
				sameFlows(t, got, sent)
				want = append(want, sent...)
				joined += of
			}
			if (joined > 0) != c.to.TCP {
				t.Errorf("%d were joined", joined)
			}
			for _, n := range []*laneNode{gw, a} {
				n.expectDrops(nil)
			}
			bytes := 0
			for _, p := range want {
				bytes += len(p)
			}
			await(t, "counters", func() bool { return gw.engine.Stats().Peers[idA].ReceivedBytes == uint64(bytes) })
			await(t, "counters", func() bool { return a.engine.Stats().Peers[gateway].SentBytes == uint64(bytes) })
			if got := a.engine.Stats().Peers[gateway].SentPackets; got != uint64(len(want)) {
				t.Errorf("sent %d packets, want %d", got, len(want))
			}
			if got := gw.engine.Stats().Peers[idA].ReceivedPackets; got != uint64(len(want)) {
				t.Errorf("received %d packets, want %d", got, len(want))
			}
			await(t, "progress", func() bool { // and the PING, and reports
				sealed, _ := atA.Progress()
				_, opened := atGateway.Progress()
				return sealed > uint64(len(want)) && opened == sealed
			})
		})
	}
}

// singles are packets of their own, each with a checksum of one kind or none.
func singles(from4, to4, from6, to6 netip.Addr) []tun.Packet {
	syn := kind{bytes: 1340, flags: flagSYN, port: 1, ttl: 64}
	full := superPacket(udp4, from4, to4, 100)
	complete(full.Data, 20, 6)
	full6 := superPacket(tcp6, from6, to6, 1)
	complete(full6.Data, 40, 16)
	options := append([]byte{0x46}, superPacket(udp4, from4, to4, 4).Data[1:20]...)
	options = append(options, 1, 1, 1, 0)
	options = append(options, superPacket(udp4, from4, to4, 4).Data[20:]...)
	binary.BigEndian.PutUint16(options[2:], uint16(len(options)))
	options[10], options[11] = 0, 0
	binary.BigEndian.PutUint16(options[10:], ^onesSum(options[:24]))
	fragment := ip(from4, to4, "a fragment")
	fragment[6], fragment[10], fragment[11] = 0x20, 0, 0
	binary.BigEndian.PutUint16(fragment[10:], ^onesSum(fragment[:20]))
	extension := ip(from6, to6, "behind destination options")
	extension[6] = 60
	echo4, echo6 := ip(from4, to4, "echo"), ip(from6, to6, "echo")
	echo4[9], echo4[20], echo4[10], echo4[11] = 1, 8, 0, 0
	binary.BigEndian.PutUint16(echo4[10:], ^onesSum(echo4[:20]))
	echo6[6], echo6[40] = 58, 128
	return []tun.Packet{
		superPacket(syn, from4, to4, 0), superPacket(syn, from6, to6, 0), superPacket(udp4, from4, to4, 3),
		superPacket(udp4, from6, to6, 1300), superPacket(tcp4, from4, to4, 1340),
		{Data: full.Data},
		{Data: full6.Data},
		{Data: options},
		{Data: fragment},
		{Data: extension},
		{Data: echo4},
		{Data: echo6},
		{Data: ip(from4, to4, "without a checksum")},
		{Data: ip(from4, to4, "")},
	}
}

// TestLaneCarriesSinglePackets: whatever the host sends arrives as it was, its checksum completed.
func TestLaneCarriesSinglePackets(t *testing.T) {
	for name, cfg := range map[string]laneConfig{"partial": {}, "complete": {noPartial: true}} {
		t.Run(name, func(t *testing.T) {
			gw, a, _, _ := pairOf(t, allOffloads, cfg)
			for i, p := range singles(a4, gw4, a6, gw6) {
				want := segments(t, p)
				a.inject(p)
				if got, _ := gw.host(1); !equalPackets(got, want...) {
					t.Errorf("packet %d: got %x, want %x", i, got, want)
				}
			}
			for i, p := range singles(gw4, a4, gw6, a6) {
				want := segments(t, p)
				gw.inject(p)
				if got, _ := a.host(1); !equalPackets(got, want...) {
					t.Errorf("packet %d back: got %x, want %x", i, got, want)
				}
			}
			gw.expectDrops(nil)
			a.expectDrops(nil)
		})
	}
}

// TestPartialContextIsUsed, and only where the peer takes it: then the checksum has been completed.
func TestPartialContextIsUsed(t *testing.T) {
	for _, partial := range []bool{true, false} {
		t.Run(fmt.Sprint(partial), func(t *testing.T) {
			gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
			other := newStranger(gw, idA, laneConfig{noPartial: !partial})
			one, many := superPacket(tcp4, gw4, a4, 10), superPacketAt(tcp4, gw4, a4, 10, 3000)
			full := tun.Packet{Data: ip(gw4, a4, "complete as it is")}
			gw.inject(one, many, full)
			got := other.receive(5)
			want := allSegments(t, []tun.Packet{one, many, full})
			for i, d := range got[:min(len(got), len(want))] {
				context := uint8(plainContext)
				if partial && i < 4 {
					context = clientPartial
					if sum := binary.BigEndian.Uint16(d.Payload[36:]); sum != onesSum(pseudoHeader(d.Payload, 20)) {
						t.Errorf("packet %d: the checksum %04x is not partial", i, sum)
					}
					complete(d.Payload, 20, 16)
				}
				if d.ContextID != context || d.QuarterStreamID != testQuarterStreamID {
					t.Errorf("packet %d: context %d of quarter stream %d", i, d.ContextID, d.QuarterStreamID)
				}
				if !equalPackets([][]byte{d.Payload}, want[i]) {
					t.Errorf("packet %d: %x, want %x", i, d.Payload, want[i])
				}
			}
		})
	}
}

// TestLaneHub: between two members, each with a lane, the gateway routes without its NIC, with one hop less.
func TestLaneHub(t *testing.T) {
	for name, cfg := range map[string][2]laneConfig{
		"partial":          {{}, {}},
		"partial, one way": {{}, {noPartial: true}},
		"complete":         {{noPartial: true}, {noPartial: true}},
	} {
		t.Run(name, func(t *testing.T) {
			gw := startLanes(t, gatewaySnapshot(idA, idB), allOffloads, loopback4)
			a := startLanes(t, memberSnapshot(a4, a6), allOffloads, loopback4)
			b := startLanes(t, memberSnapshot(b4, b6), allOffloads, loopback4)
			connectLanes(a, gw, gateway, idA, cfg[0])
			connectLanes(b, gw, gateway, idB, cfg[1])
			joined := 0
			for _, packets := range flowsBetween(a4, b4, a6, b6) {
				a.inject(packets...)
				for i := range packets {
					packets[i] = oneHopLess(packets[i])
				}
				want := allSegments(t, packets)
				got, of := b.host(len(want))
				sameFlows(t, got, want)
				joined += of
			}
			if joined == 0 {
				t.Error("none was joined")
			}
			back := superPacket(tcp6, b6, a6, 30_000)
			b.inject(back)
			want := segments(t, oneHopLess(back))
			got, _ := a.host(len(want))
			sameFlows(t, got, want)
			for _, n := range []*laneNode{gw, a, b} {
				n.expectDrops(nil)
			}
			if len(gw.nic.Packets()) != 0 {
				t.Error("the gateway's host got something")
			}
		})
	}
}

func oneHopLess(p tun.Packet) tun.Packet {
	data := append([]byte(nil), p.Data...)
	if data[0]>>4 == 6 {
		data[7]--
	} else {
		data[8]--
		data[10], data[11] = 0, 0
		binary.BigEndian.PutUint16(data[10:], ^onesSum(data[:int(data[0]&15)*4]))
	}
	return tun.Packet{Data: data, Offload: p.Offload}
}

// TestLaneAndCarrierMeetAtTheHub: one member has a lane, the other a session alone.
func TestLaneAndCarrierMeetAtTheHub(t *testing.T) {
	gw, a, _, _ := pairOf(t, allOffloads, laneConfig{})
	theirs := gw.carrier(idB)
	up := superPacket(tcp4, a4, b4, 20_000)
	a.inject(up)
	for i, want := range segments(t, oneHopLess(up)) {
		if got := next(t, theirs.in); !equalPackets([][]byte{got}, want) {
			t.Fatalf("segment %d: %x, want %x", i, got[:60], want[:60])
		}
	}
	down := segments(t, superPacket(tcp4, b4, a4, 20_000))
	for _, p := range down {
		if err := theirs.SendPacket(p); err != nil {
			t.Fatal(err)
		}
	}
	for i := range down {
		down[i] = oneHopLess(tun.Packet{Data: down[i]}).Data
	}
	got, _ := a.host(len(down))
	sameFlows(t, got, down)
	gw.expectDrops(nil)
	a.expectDrops(nil)
}

// TestManyTrains: more runs of packets of one length than one system call takes, and more bytes.
func TestManyTrains(t *testing.T) {
	gw, a, _, atA := pairOf(t, allOffloads, laneConfig{})
	s := a.engine.newSender()
	var want [][]byte
	for !atA.serving.CompareAndSwap(false, true) {
	}
	if !s.begin(atA.Lane, a.engine.now()) {
		t.Fatal("cannot seal")
	}
	for i := range 300 { // each longer than the one before, so that none joins its train
		p := superPacket(udp4, a4, gw4, 1+4*i)
		want = append(want, segments(t, p)...)
		b := a.engine.bufferWith(t, p)
		s.send(b)
		a.engine.buffers.put(b)
	}
	s.end()
	s.lane, s.sealer = nil, nil
	atA.serving.Store(false)
	got, _ := gw.host(len(want))
	if !equalPackets(got, want...) {
		t.Error("they arrived changed or in another order")
	}
	gw.expectDrops(nil)
	a.expectDrops(nil)
}

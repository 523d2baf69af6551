package dataplane

import (
	"testing"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
	"github.com/aethertunnel/aethertunnel/tun"
)

// splitBytes is the longest lane packet of the tests with pieces: too short for what every link of IPv6 carries.
const splitBytes = 1300

// newSplitStages makes stages whose lane takes packets in pieces, and whose receiving NIC keeps what it gets. searched
// says whether the lane knows what the path carries.
func newSplitStages(t *testing.T, searched bool) *stages {
	t.Helper()
	const pieces = 3
	s := newStages(t, laneConfig{packetBytes: splitBytes})
	s.lane.pieceContext, s.far.takePieces = pieces, pieces
	s.lane.searched.Store(searched)
	s.keep()
	return s
}

// keep has the receiving NIC keep what it gets.
func (s *stages) keep() {
	nic := tun.NewMemoryWithOffloads("mem0", allOffloads)
	s.to.nic = nic
	s.to.engine.nic.Load().Device = nic
}

// cross lets a packet cross the lane and returns what the gateway's host gets, cut, and how many lane packets that took.
func (s *stages) cross(p tun.Packet, segments int) (got [][]byte, datagrams uint64) {
	before := s.from.conn.Stats().SentDatagrams
	s.read(p)
	s.send()
	datagrams = s.from.conn.Stats().SentDatagrams - before
	s.take(datagrams)
	got, _ = s.to.host(segments)
	return got, datagrams
}

func datagramOf(bytes int) kind { return kind{udp: true, bytes: bytes, port: 7, ttl: 64} }

// TestPacketsInPieces: until the lane knows what the path carries, what is too long is cut and arrives whole.
func TestPacketsInPieces(t *testing.T) {
	for name, p := range map[string]tun.Packet{
		"IPv4":                  superPacket(datagramOf(1472), a4, gw4, 1472),
		"IPv6":                  superPacket(datagramOf(1452), a6, gw6, 1452),
		"a long one":            superPacket(datagramOf(20_000), a4, gw4, 20_000),
		"the longest":           superPacket(datagramOf(65_000), a6, gw6, 65_000),
		"segments":              superPacket(tcp4, a4, gw4, 10*tcp4.bytes),
		"segments, IPv6":        superPacket(tcp6, a6, gw6, 10*tcp6.bytes),
		"with its own checksum": {Data: segments(t, superPacket(datagramOf(1472), a4, gw4, 1472))[0]},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSplitStages(t, false)
			want := segments(t, p)
			got, datagrams := s.cross(p, len(want))
			sameFlows(t, got, want)
			if datagrams < uint64(2*len(want)) {
				t.Errorf("%d packets were sent as %d", len(want), datagrams)
			}
			s.from.expectDrops(nil)
			s.to.expectDrops(nil)
			if n := s.to.engine.pieces.InUseBytes(); n != 0 {
				t.Errorf("%d bytes are held though nothing is unfinished", n)
			}
			if n := s.from.engine.Stats().Peers[gateway].SentPackets; n != uint64(len(want)) {
				t.Errorf("%d packets counted, want %d", n, len(want))
			}
		})
	}
}

// TestPiecesOnASearchedPath: what every link of IPv6 carries crosses, of all else the sender is told.
func TestPiecesOnASearchedPath(t *testing.T) {
	const least, header4, header6 = packet.MinIPv6MTUBytes, 28, 48
	for name, c := range map[string]struct {
		packet tun.Packet
		want   icmpError // zero: it crosses
	}{
		"fits 4": {superPacket(datagramOf(least), a4, gw4, least-header4), icmpError{}},
		"fits 6": {superPacket(datagramOf(least), a6, gw6, least-header6), icmpError{}},
		"4": {
			superPacket(datagramOf(2*least), a4, gw4, least-header4+1),
			icmpError{from: gw4, to: a4, kind: 3, code: 4, mtu: least},
		},
		"6": {
			superPacket(datagramOf(2*least), a6, gw6, least-header6+1),
			icmpError{from: gw6, to: a6, kind: 2, mtu: least},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSplitStages(t, true)
			if !c.want.from.IsValid() {
				got, datagrams := s.cross(c.packet, 1)
				sameFlows(t, got, segments(t, c.packet))
				if datagrams != 2 {
					t.Errorf("sent as %d", datagrams)
				}
				return
			}
			s.read(c.packet)
			s.send()
			c.want.about = c.packet.Data
			isICMP(t, [][]byte{next(t, s.from.engine.toNIC)}, c.want)
			s.from.expectDrops(map[Reason]uint64{DropTooBig: 1})
		})
	}
}

// TestLostPieces: the rest of a packet is held for a while, or until the lane ends, and counts as one lost.
func TestLostPieces(t *testing.T) {
	for name, end := range map[string]func(s *stages){
		"time":     func(s *stages) { s.to.engine.started = s.to.engine.started.Add(-path.UnfinishedNanos) },
		"the lane": func(s *stages) { s.far.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSplitStages(t, false)
			p := superPacket(datagramOf(1472), a4, gw4, 1472)
			first := lane.OverheadBytes + lane.DatagramHeaderBytes + path.PieceHeaderBytes + len(p.Data)/2
			second := s.seal(p)[first:]
			s.receiver.messages[0] = udp.Message{Data: second, SegmentBytes: len(second)}
			s.receiver.take(1)
			if n := s.to.engine.pieces.InUseBytes(); n == 0 {
				t.Fatal("nothing is held")
			}
			s.to.expectDrops(nil)
			end(s)
			s.receiver.take(0)
			if n := s.to.engine.pieces.InUseBytes(); n != 0 {
				t.Errorf("%d bytes are still held", n)
			}
			s.to.expectDrops(map[Reason]uint64{DropPieces: 1})
		})
	}
}

// TestACongestedPieceMarksThePacket, whichever piece it is.
func TestACongestedPieceMarksThePacket(t *testing.T) {
	const ect0, ce = 2, 3
	for _, marks := range [][2]uint8{{ect0, ect0}, {ce, ect0}, {ect0, ce}} {
		s := newSplitStages(t, false)
		k := datagramOf(1472)
		k.tos = ect0
		p := superPacket(k, a4, gw4, 1472)
		first := lane.OverheadBytes + lane.DatagramHeaderBytes + path.PieceHeaderBytes + len(p.Data)/2
		all := s.seal(p)
		for i, piece := range [][]byte{all[:first], all[first:]} {
			s.receiver.messages[i] = udp.Message{Data: piece, SegmentBytes: len(piece), ECN: marks[i]}
		}
		s.receiver.take(2)
		got, _ := s.to.host(1)
		if want := packet.ECN(max(marks[0], marks[1])); packet.ReadECN(got[0]) != want {
			t.Errorf("pieces with %v: the packet has %v", marks, packet.ReadECN(got[0]))
		}
	}
}

package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
	"github.com/aethertunnel/aethertunnel/tun"
)

// sealAsIs is a lane packet of whatever is given.
func (s *stages) sealAsIs(inner []byte) []byte {
	frames := append(make([]byte, lane.DatagramHeaderBytes), inner...)
	lane.PutDatagramHeader((*[lane.DatagramHeaderBytes]byte)(frames), testQuarterStreamID, plainContext)
	out := make([]byte, lane.OverheadBytes+len(frames))
	if _, verdict := s.lane.sealer.Load().Seal(out, frames); verdict != lane.VerdictOK {
		s.tb.Fatalf("seal: %v", verdict)
	}
	return out
}

// takeAtOnce has the gateway take inner packets of a in one batch, as they are.
func (s *stages) takeAtOnce(inner ...[]byte) {
	for i, p := range inner {
		sealed := s.sealAsIs(p)
		s.receiver.messages[i] = udp.Message{Data: sealed, SegmentBytes: len(sealed)}
	}
	s.receiver.take(len(inner))
}

// TestKnownFlowIsStillChecked: that a packet of the same addresses was fine says nothing about the next one.
func TestKnownFlowIsStillChecked(t *testing.T) {
	for _, way := range [][2]netip.Addr{{a4, b4}, {a6, b6}} {
		s := newStages(t, laneConfig{})
		silent := gatewaySnapshot(idA, idB)
		silent.NICAddresses = nil // nobody is answered here
		if err := s.to.engine.Apply(silent); err != nil {
			t.Fatal(err)
		}
		good, spent := ipHops(way[0], way[1], 2, []byte("x")), ipHops(way[0], way[1], 1, []byte("x"))
		s.takeAtOnce(good, spent, good[:len(good)-1], append(slices.Clone(good), 0), good)
		s.to.expectDrops(map[Reason]uint64{DropNoSession: 2, DropHopLimit: 1, DropMalformed: 2})
	}
}

// TestMoreThanAJoinerHolds: a batch of many short packets arrives all the same.
func TestMoreThanAJoinerHolds(t *testing.T) {
	s := newStages(t, laneConfig{})
	s.to.engine.nic.Load().join = packet.JoinConfig{} // each stays alone
	const packets = packet.JoinPackets + 10
	m := &s.receiver.messages[0]
	m.Data = nil
	for range packets {
		sealed := s.sealAsIs(ip(a4, gw4, "x"))
		m.Data, m.SegmentBytes = append(m.Data, sealed...), len(sealed)
	}
	s.receiver.take(1)
	if s.sink.packets != packets {
		t.Errorf("%d arrived, of %d", s.sink.packets, packets)
	}
	s.to.expectDrops(nil)
}

// TestSparseFlowsPassABulkFlowAtTheHub: what comes by a lane and goes on by a slow carrier is queued by flows.
func TestSparseFlowsPassABulkFlowAtTheHub(t *testing.T) {
	s := newStages(t, laneConfig{})
	s.to.engine.nic.Load().join = packet.JoinConfig{}
	theirs := s.to.carrier(idB)
	const bulk, turn, sparse = 300, 100, 10 // a turn is more than a new flow may send in its first one
	for range bulk / 50 {
		s.takeAtOnce(slices.Repeat([][]byte{ip(a4, b4, "bulk ")}, 50)...)
	}
	for range turn {
		next(t, theirs.in)
	}
	var flows [][]byte
	var want []string
	for i := range sparse { // other ports, so other flows
		p := ip(a4, b4, fmt.Sprintf("game%d", i))
		binary.BigEndian.PutUint16(p[20:], uint16(1+i))
		flows, want = append(flows, p), append(want, numberOf(p))
	}
	s.takeAtOnce(flows...)
	var got []string
	for range sparse + 1 { // one of the bulk may have been in the carrier's hand
		if p := next(t, theirs.in); numberOf(p) != "bulk " {
			got = append(got, numberOf(p))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("first came %q", got)
	}
}

// TestHashesDifferByEngine, or strangers could choose flows that share a queue.
func TestHashesDifferByEngine(t *testing.T) {
	p := ip(a4, b4, "x")
	hashes := make(map[uint32]bool)
	for range 4 {
		hashes[packet.FlowHash(p, New().seed)] = true
	}
	if len(hashes) == 1 {
		t.Error("all the same")
	}
}

// TestPacketForAnotherPlace goes there alone: what follows it goes to the peer, and arrives though the first could not be
// sent.
func TestPacketForAnotherPlace(t *testing.T) {
	s := newStages(t, laneConfig{})
	s.keep()
	nowhere, err := s.from.conn.NewDestination(netip.MustParseAddrPort("255.255.255.255:9"), netip.Addr{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.lane.say(controlPacket{frames: lane.AppendPadding(nil, 500), by: &way{nowhere, s.lane.way.Load().id}})
	p := superPacket(udp4, a4, gw4, 100)
	got, _ := s.cross(p, 1)
	sameFlows(t, got, segments(t, p))
	s.from.expectDrops(map[Reason]uint64{DropSend: 1})
}

// TestProbesGoAlone: a router that is handed a train as a whole drops it as a whole, with what is short enough.
func TestProbesGoAlone(t *testing.T) {
	s := newStages(t, laneConfig{})
	s.keep()
	for _, bytes := range []int{1400, 1300} {
		s.lane.say(controlPacket{frames: lane.AppendPadding(nil, bytes), probe: true})
	}
	p := superPacket(udp4, a4, gw4, 100)
	got, _ := s.cross(p, 1)
	sameFlows(t, got, segments(t, p))
	for i, train := range s.reader.sender.trains[:3] {
		if len(train.Data) == 0 || len(train.Data) != train.SegmentBytes {
			t.Errorf("train %d has %d bytes in packets of %d", i, len(train.Data), train.SegmentBytes)
		}
	}
}

// TestChecksumOfAPacketWithin: what the host leaves to be completed may belong to a tunnel's packet within its own, where
// the peer would not look.
func TestChecksumOfAPacketWithin(t *testing.T) {
	const headers, tcpStart, tcpChecksum = 20 + 8, 20, 16
	s := newStages(t, laneConfig{})
	s.keep()
	within := superPacket(tcp4, a4, gw4, 100)
	p := tun.Packet{
		Data:    ip(a4, gw4, string(within.Data)),
		Offload: tun.Offload{PartialChecksum: true, ChecksumStart: headers + tcpStart, ChecksumOffset: tcpChecksum},
	}
	want := slices.Concat(p.Data[:headers], segments(t, within)[0])
	if got, _ := s.cross(p, 1); !equalPackets(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	s.from.expectDrops(nil)
}

package dataplane

import (
	"testing"

	"github.com/aethertunnel/aethertunnel/dataplane/udp"
	"github.com/aethertunnel/aethertunnel/tun"
)

// laneBenchmarks are what the stages are measured with: a full super-packet, as a bulk transfer makes them, and one
// packet of a game.
func laneBenchmarks() map[string]tun.Packet {
	return map[string]tun.Packet{
		"super": superPacket(tcp4, a4, gw4, 48*tcp4.bytes),
		"full":  superPacket(udp4, a4, gw4, 1300),
		"small": superPacket(udp4, a4, gw4, 64),
	}
}

// benchLane runs a benchmark for each kind of packet and for both kinds of checksum.
func benchLane(b *testing.B, run func(b *testing.B, s *stages, p tun.Packet)) {
	b.Helper()
	for name, p := range laneBenchmarks() {
		for context, cfg := range map[string]laneConfig{"partial": {}, "complete": {noPartial: true}} {
			b.Run(name+"/"+context, func(b *testing.B) {
				s := newStages(b, cfg)
				b.ReportAllocs()
				b.SetBytes(int64(len(p.Data)))
				run(b, s, p)
			})
		}
	}
}

// BenchmarkLaneQueue is the reader: copy or swap of the buffer, route, queue, and out of it again.
func BenchmarkLaneQueue(b *testing.B) {
	for name, p := range laneBenchmarks() {
		b.Run(name, func(b *testing.B) {
			s := newStages(b, laneConfig{})
			b.ReportAllocs()
			b.SetBytes(int64(len(p.Data)))
			for b.Loop() {
				s.read(p)
				s.from.engine.discard(s.lane.peer)
			}
		})
	}
}

// BenchmarkLaneSeal cuts and seals, with a copy of the packet into a buffer and one of what is sealed out of it.
func BenchmarkLaneSeal(b *testing.B) {
	benchLane(b, func(b *testing.B, s *stages, p tun.Packet) {
		for b.Loop() {
			s.seal(p)
		}
	})
}

// BenchmarkLaneSealOpen is BenchmarkLaneSeal and, behind it, open, join and write to a NIC that costs nothing: the
// difference is the receiver's part without the socket.
func BenchmarkLaneSealOpen(b *testing.B) {
	benchLane(b, func(b *testing.B, s *stages, p tun.Packet) {
		segmentBytes := len(s.seal(p))
		if p.Offload.SegmentBytes > 0 {
			segmentBytes = int(p.Offload.SegmentBytes) + 52 + innerOverheadBytes
		}
		for b.Loop() {
			sealed := s.seal(p)
			s.message = udp.Message{Data: sealed, SegmentBytes: segmentBytes}
			s.open()
		}
		if s.to.dropped() != 0 {
			b.Errorf("dropped %v", s.to.drops())
		}
	})
}

// BenchmarkLaneSend seals and sends to a socket on loopback that nobody reads, which drops what it has no room for.
func BenchmarkLaneSend(b *testing.B) {
	benchLane(b, func(b *testing.B, s *stages, p tun.Packet) {
		for b.Loop() {
			s.read(p)
			s.send()
		}
	})
}

// BenchmarkLaneStages is the whole way, one stage after the other: read, queue, seal, send, receive, open, join, write.
func BenchmarkLaneStages(b *testing.B) {
	benchLane(b, func(b *testing.B, s *stages, p tun.Packet) {
		for b.Loop() {
			s.read(p)
			s.send()
			s.receive(len(p.Data))
		}
	})
}

// BenchmarkLaneNICToNIC is the whole way with a sending and a receiving engine at the same time, as they run: what
// arrives counts, not what was sent.
func BenchmarkLaneNICToNIC(b *testing.B) {
	for name, p := range laneBenchmarks() {
		b.Run(name, func(b *testing.B) {
			to := newEndless(allOffloads)
			from := newEndless(allOffloads)
			gw := startLanesOn(b, gatewaySnapshot(idA), to, openConn(b, loopback4))
			a := startLanesOn(b, memberSnapshot(a4, a6), from, openConn(b, loopback4))
			connectLanes(a, gw, gateway, idA, laneConfig{})
			from.begin(p)
			b.ReportAllocs()
			b.SetBytes(int64(len(p.Data)))
			left := 0
			for b.Loop() {
				for left < len(p.Data) {
					left += <-to.written
				}
				left -= len(p.Data)
			}
		})
	}
}

package dataplane

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/aethertunnel/aethertunnel/tun"
)

// syn makes a TCP SYN that announces a maximum segment size, with a partial checksum.
func syn(from, to netip.Addr, mss uint16) tun.Packet {
	p := superPacket(kind{flags: flagSYN, bytes: 1, port: 1, ttl: 64}, from, to, 0)
	copy(p.Data[p.Offload.ChecksumStart+20:], []byte{1, 1, 1, 1, 2, 4, byte(mss >> 8), byte(mss), 1, 1, 1, 1})
	return p
}

// whole is a packet with its full checksum.
func whole(p tun.Packet) []byte {
	data := bytes.Clone(p.Data)
	complete(data, int(p.Offload.ChecksumStart), int(p.Offload.ChecksumOffset))
	return data
}

// TestConnectionsFitThePath: TCP connections that begin while a peer's path carries less than the NIC are made to fit,
// without ICMP, which some hosts never see.
func TestConnectionsFitThePath(t *testing.T) {
	const bytes4, bytes6, room = 40, 60, 1200 // of headers, and what the path carries
	cases := []struct {
		p    tun.Packet
		want tun.Packet
	}{
		{syn(gw4, a4, 1460), syn(gw4, a4, room-bytes4)},
		{syn(gw6, a6, 1440), syn(gw6, a6, room-bytes6)},
		{syn(gw4, a4, 536), syn(gw4, a4, 536)},
		{superPacket(udp4, gw4, a4, 40), superPacket(udp4, gw4, a4, 40)},
	}
	t.Run("lane", func(t *testing.T) {
		for _, partial := range []bool{true, false} {
			gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
			o := newStranger(gw, idA, laneConfig{packetBytes: room + innerOverheadBytes, noPartial: !partial})
			o.challenged()
			await(t, "the path to be searched", o.end.searched.Load)
			for _, c := range cases {
				gw.inject(c.p)
				got := tun.Packet{Data: o.receive(1)[0].Payload, Offload: c.p.Offload}
				if partial {
					got.Data = whole(got)
				}
				if !bytes.Equal(got.Data, whole(c.want)) {
					t.Errorf("partial %v:\ngot  %x\nwant %x", partial, got.Data, whole(c.want))
				}
			}
		}
	})
	t.Run("carrier", func(t *testing.T) {
		gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
		ours, peer := newWire(0)
		ours.maxBytes = room
		gw.attach(idA, ours)
		for _, c := range cases {
			gw.inject(c.p)
			if got := next(t, peer.in); !bytes.Equal(got, whole(c.want)) {
				t.Errorf("got  %x\nwant %x", got, whole(c.want))
			}
		}
	})
}

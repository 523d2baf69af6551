package tun

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// tcpHeaders are 20 bytes of IPv4 and 32 of TCP.
func tcpHeaders() []byte {
	p := make([]byte, 52)
	p[0], p[32] = 0x45, 0x80
	return p
}

func TestMemoryPassesOffloads(t *testing.T) {
	all := Offloads{VirtioHeader: true, TCP: true, UDP: true, MaxSegments: 45}
	m := NewMemoryWithOffloads("mem0", all)
	defer m.Close()
	if m.Offloads() != all {
		t.Errorf("offloads %+v", m.Offloads())
	}
	o := Offload{SegmentTCP4, 100, true, 20, 16, true}
	for i := range byte(6) {
		if err := m.InjectPacket(Packet{bytes.Repeat([]byte{i}, 100), o}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		read                func([]Packet, int) (int, error)
		slots, budget, want int
	}{
		{m.ReadPackets, 0, 0, 0},
		{m.ReadPackets, 2, 0, 2},
		{m.ReadPackets, 8, 100, 1},
		{m.TryReadPackets, 8, 101, 2},
		{m.ReadPackets, 8, 0, 1},
		{m.TryReadPackets, 8, 0, 0},
	} {
		packets := slots(c.slots)
		buffers := slices.Clone(packets)
		n, err := c.read(packets, c.budget)
		if n != c.want || err != nil {
			t.Errorf("%d, %v; want %d", n, err, c.want)
		}
		for i, p := range packets[:n] {
			if len(p.Data) != 100 || &p.Data[0] != &buffers[i].Data[Headroom] || p.Offload != o {
				t.Errorf("packet %d: %d bytes, %+v", i, len(p.Data), p.Offload)
			}
		}
	}
	pieces := [][]byte{tcpHeaders(), {1, 2}, {}, {3}}
	if err := m.WritePacket(pieces, o); err != nil {
		t.Fatal(err)
	}
	pieces[1][0] = 9 // the device has copied
	if p := <-m.Packets(); p.Offload != o || !bytes.Equal(p.Data, append(tcpHeaders(), 1, 2, 3)) {
		t.Errorf("wrote %+v", p)
	}
}

// TestUnwritable: what no device takes, and what only some do.
func TestUnwritable(t *testing.T) {
	tcp := Offload{SegmentTCP4, 100, true, 20, 16, false}
	udp := Offload{SegmentUDP, 100, true, 20, 6, false}
	partial := Offload{PartialChecksum: true, ChecksumStart: 20, ChecksumOffset: 6}
	with := func(o Offload, change func(*Offload)) Offload { change(&o); return o }
	all := Offloads{VirtioHeader: true, TCP: true, UDP: true}
	whole := [][]byte{tcpHeaders(), make([]byte, 500)}
	for _, c := range []struct {
		name   string
		device Offloads
		pieces [][]byte
		o      Offload
		want   error
	}{
		{"plain", Offloads{}, whole, Offload{}, nil},
		{"TCP", all, whole, tcp, nil},
		{"UDP", all, whole, udp, nil},
		{"partial", all, whole, partial, nil},
		{"most pieces", all, append([][]byte{tcpHeaders()}, make([][]byte, MaxPieces-1)...), tcp, nil},
		{"longest", Offloads{}, [][]byte{make([]byte, MaxPacketBytes-1), {1}}, Offload{}, nil},

		{"no pieces", all, nil, Offload{}, errPieces},
		{"too many pieces", all, append([][]byte{tcpHeaders()}, make([][]byte, MaxPieces)...), tcp, errPieces},
		{"no bytes", all, [][]byte{{}, {}}, Offload{}, errLength},
		{"too many bytes", all, [][]byte{make([]byte, MaxPacketBytes), {1}}, Offload{}, errLength},
		{"no offloads", Offloads{}, whole, partial, errOffload},
		{"no TCP", Offloads{VirtioHeader: true, UDP: true}, whole, tcp, errOffload},
		{"no UDP", Offloads{VirtioHeader: true, TCP: true}, whole, udp, errOffload},
		{"unknown", all, whole, with(tcp, func(o *Offload) { o.Segmentation = 9 }), errOffload},
		{"no checksum", all, whole, with(tcp, func(o *Offload) { o.PartialChecksum = false }), errOffload},
		{"headers in two", all, [][]byte{tcpHeaders()[:40], make([]byte, 500)}, tcp, errHeaders},
		{"empty first piece", all, [][]byte{{}, tcpHeaders()}, tcp, errHeaders},
		{"other version", all, whole, with(tcp, func(o *Offload) { o.Segmentation = SegmentTCP6 }), errHeaders},
		{"other field", all, whole, with(partial, func(o *Offload) { o.ChecksumOffset = 7 }), errHeaders},
		{"UDP as TCP", all, whole, with(udp, func(o *Offload) { o.Segmentation = SegmentTCP4 }), errHeaders},
		{"TCP as UDP", all, whole, with(tcp, func(o *Offload) { o.Segmentation = SegmentUDP }), errHeaders},
		{"no size", all, whole, with(tcp, func(o *Offload) { o.SegmentBytes = 0 }), errHeaders},
		{"beyond the end", all, whole, with(partial, func(o *Offload) { o.ChecksumStart = 45 }), errHeaders},
	} {
		err := c.device.refuse(c.pieces, c.o)
		if !errors.Is(err, c.want) || err != nil && !errors.Is(err, ErrUnwritable) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/aethertunnel/aethertunnel/tun"
)

// builder describes a TCP or UDP packet for tests.
type builder struct {
	v6       bool
	udp      bool
	flow     byte // picks addresses and ports
	tos      byte
	ttl      byte
	id       uint16
	df       bool
	seq, ack uint32
	flags    byte
	window   uint16
	options  []byte // TCP, a multiple of 4 bytes
	ipOpts   []byte // IPv4, a multiple of 4 bytes
	payload  []byte
}

// build makes the packet with a full checksum, or a partial one.
func (d builder) build(partial bool) []byte {
	var transport []byte
	if d.udp {
		transport = make([]byte, 8)
		binary.BigEndian.PutUint16(transport[4:], uint16(8+len(d.payload)))
	} else {
		transport = make([]byte, 20, 60)
		binary.BigEndian.PutUint32(transport[4:], d.seq)
		binary.BigEndian.PutUint32(transport[8:], d.ack)
		transport[12] = byte(20+len(d.options)) << 2
		transport[13] = d.flags
		binary.BigEndian.PutUint16(transport[14:], d.window)
		transport = append(transport, d.options...)
	}
	binary.BigEndian.PutUint16(transport, 1000+uint16(d.flow))
	binary.BigEndian.PutUint16(transport[2:], 443)
	transport = append(transport, d.payload...)
	protocol := byte(ProtocolTCP)
	if d.udp {
		protocol = ProtocolUDP
	}
	var p []byte
	if d.v6 {
		p = make([]byte, 40)
		p[0], p[1] = 0x60|d.tos>>4, d.tos<<4
		p[6], p[7] = protocol, d.ttl
		p[8], p[23], p[24], p[39] = 0xfd, d.flow, 0xfd, 2
	} else {
		p = make([]byte, 20, 60)
		p[1], p[8], p[9] = d.tos, d.ttl, protocol
		binary.BigEndian.PutUint16(p[4:], d.id)
		if d.df {
			p[6] = 0x40
		}
		p[12], p[15], p[16], p[19] = 10, d.flow, 10, 2
		p = append(p, d.ipOpts...)
		p[0] = 0x40 | byte(len(p)/4)
	}
	n := len(p)
	p = append(p, transport...)
	slowFix(p, n, partial)
	return p
}

// slowPseudo is the pseudo header of a packet, byte by byte.
func slowPseudo(p []byte, transport int) []byte {
	if p[0]>>4 == 6 {
		h := append([]byte(nil), p[8:40]...)
		h = binary.BigEndian.AppendUint32(h, uint32(len(p)-40))
		return append(h, 0, 0, 0, p[6])
	}
	h := append([]byte(nil), p[12:20]...)
	h = append(h, 0, p[9])
	return binary.BigEndian.AppendUint16(h, uint16(len(p)-transport))
}

// slowFix writes length fields and checksums of a packet.
func slowFix(p []byte, transport int, partial bool) {
	protocol, field := p[9], transport+16
	if p[0]>>4 == 6 {
		protocol = p[6]
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	} else {
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], ^sum(p[:transport]))
	}
	if protocol == ProtocolUDP {
		field = transport + 6
		binary.BigEndian.PutUint16(p[transport+4:], uint16(len(p)-transport))
	}
	pseudo := slowPseudo(p, transport)
	if partial {
		binary.BigEndian.PutUint16(p[field:], sum(pseudo))
		return
	}
	p[field], p[field+1] = 0, 0
	all := append(pseudo, p[transport:]...)
	if len(all)%2 == 1 {
		all = append(all, 0)
	}
	c := ^sum(all)
	if c == 0 && protocol == ProtocolUDP {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(p[field:], c)
}

// slowPlaces is where transport header and payload of a whole TCP or UDP packet without extension headers
// begin.
func slowPlaces(p []byte) (transport, payload int) {
	transport = 40
	protocol := p[6]
	if p[0]>>4 == 4 {
		transport, protocol = int(p[0]&15)*4, p[9]
	}
	if protocol == ProtocolUDP {
		return transport, transport + 8
	}
	return transport, transport + int(p[transport+12]>>4)*4
}

// slowCut cuts a super-packet as plainly as can be.
func slowCut(p []byte, segmentBytes int, partial bool) [][]byte {
	transport, start := slowPlaces(p)
	var out [][]byte
	for k, at := 0, start; at < len(p); k, at = k+1, at+segmentBytes {
		end := min(at+segmentBytes, len(p))
		s := append(append([]byte(nil), p[:start]...), p[at:end]...)
		protocol := s[6]
		if s[0]>>4 == 4 {
			protocol = s[9]
			binary.BigEndian.PutUint16(s[4:], binary.BigEndian.Uint16(p[4:])+uint16(k))
		}
		if protocol == ProtocolTCP {
			seq := binary.BigEndian.Uint32(p[transport+4:])
			binary.BigEndian.PutUint32(s[transport+4:], seq+uint32(at-start))
			if end < len(p) {
				s[transport+13] &^= 0x09
			}
			if k > 0 {
				s[transport+13] &^= 0x80
			}
		}
		slowFix(s, transport, partial)
		out = append(out, s)
	}
	return out
}

// offloadOf is what a device says of a super-packet.
func offloadOf(p []byte, segmentBytes int) tun.Offload {
	transport, _ := slowPlaces(p)
	o := tun.Offload{PartialChecksum: true, ChecksumStart: uint16(transport), ChecksumOffset: 16}
	protocol := p[6]
	o.Segmentation = tun.SegmentTCP6
	if p[0]>>4 == 4 {
		protocol = p[9]
		o.Segmentation = tun.SegmentTCP4
	}
	if protocol == ProtocolUDP {
		o.Segmentation, o.ChecksumOffset = tun.SegmentUDP, 6
	} else {
		o.CWR = p[transport+13]&0x80 != 0
	}
	o.SegmentBytes = uint16(segmentBytes)
	return o
}

var timestamps = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}

// randomBuilder is a super-packet or smaller, with any fields.
func randomBuilder(rng *rand.Rand, maxPayload int) builder {
	d := builder{
		v6: rng.IntN(2) == 0, udp: rng.IntN(3) == 0, flow: byte(rng.IntN(4)),
		tos: byte(rng.Uint32()), ttl: byte(rng.Uint32()), id: uint16(rng.Uint32()), df: rng.IntN(2) == 0,
		seq: rng.Uint32(), ack: rng.Uint32(), window: uint16(rng.Uint32()),
		flags: 0x10 | byte(rng.Uint32())&0xc9, payload: make([]byte, 1+rng.IntN(maxPayload)),
	}
	if rng.IntN(2) == 0 {
		d.options = timestamps
	}
	for i := range d.payload {
		d.payload[i] = byte(rng.Uint32())
	}
	return d
}

// bench packets

func superPacket(tb testing.TB, v6, udp bool) ([]byte, tun.Offload) {
	tb.Helper()
	d := builder{v6: v6, udp: udp, ttl: 64, df: true, flags: 0x18, payload: make([]byte, 64000)}
	segment := 1420 - 20 - 8
	if v6 {
		segment -= 20
	}
	if !udp {
		segment -= 24
		d.options = timestamps
	}
	for i := range d.payload {
		d.payload[i] = byte(i * 7)
	}
	p := d.build(true)
	return p, offloadOf(p, segment)
}

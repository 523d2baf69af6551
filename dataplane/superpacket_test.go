package dataplane

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/aethertunnel/aethertunnel/tun"
)

// kind is what a flow of the tests consists of.
type kind struct {
	udp   bool
	bytes int // payload of a segment
	tos   byte
	flags byte // TCP
	id    uint16
	port  uint16 // of the source
	ttl   byte
}

const (
	flagFIN, flagSYN, flagPSH, flagACK, flagCWR = 0x01, 0x02, 0x08, 0x10, 0x80

	protocolTCP, protocolUDP = 6, 17
)

var (
	tcp4 = kind{bytes: 1340, flags: flagACK | flagPSH, port: 1000, ttl: 64}
	tcp6 = kind{bytes: 1320, flags: flagACK | flagPSH, port: 1000, ttl: 64}
	udp4 = kind{udp: true, bytes: 1300, port: 1000, ttl: 64}
)

// superPacket makes a packet with that much payload, of which each part differs, and a partial checksum.
func superPacket(k kind, from, to netip.Addr, payloadBytes int) tun.Packet {
	return superPacketAt(k, from, to, 0, payloadBytes)
}

// superPacketAt is superPacket for what begins at some byte of the flow.
func superPacketAt(k kind, from, to netip.Addr, sequence uint32, payloadBytes int) tun.Packet {
	transport := k.transport(sequence, payloadBytes)
	p := k.ipHeader(from, to, len(transport))
	start := len(p)
	p = append(p, transport...)
	field := p[start+k.checksumOffset():]
	binary.BigEndian.PutUint16(field, onesSum(pseudoHeader(p, start)))
	o := tun.Offload{PartialChecksum: true, ChecksumStart: uint16(start), ChecksumOffset: uint16(k.checksumOffset())}
	if payloadBytes > k.bytes {
		o.SegmentBytes = uint16(k.bytes)
		switch {
		case k.udp:
			o.Segmentation = tun.SegmentUDP
		case from.Is4():
			o.Segmentation = tun.SegmentTCP4
		default:
			o.Segmentation = tun.SegmentTCP6
		}
		o.CWR = !k.udp && k.flags&flagCWR != 0
	}
	return tun.Packet{Data: p, Offload: o}
}

func (k kind) checksumOffset() int {
	if k.udp {
		return 6
	}
	return 16
}

// transport makes the TCP or UDP header, with options for TCP, and the payload.
func (k kind) transport(sequence uint32, payloadBytes int) []byte {
	var h []byte
	if k.udp {
		h = make([]byte, 8, 8+payloadBytes)
		binary.BigEndian.PutUint16(h[4:], uint16(8+payloadBytes))
	} else {
		h = make([]byte, 32, 32+payloadBytes)
		binary.BigEndian.PutUint32(h[4:], sequence)
		binary.BigEndian.PutUint32(h[8:], 77)
		h[12], h[13] = 32/4<<4, k.flags
		binary.BigEndian.PutUint16(h[14:], 500)
		copy(h[20:], []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}) // timestamps
	}
	binary.BigEndian.PutUint16(h, k.port)
	binary.BigEndian.PutUint16(h[2:], 443)
	for i := range payloadBytes {
		at := sequence + uint32(i)
		h = append(h, byte(at)^byte(at>>8)*31^byte(at>>16))
	}
	return h
}

func (k kind) ipHeader(from, to netip.Addr, transportBytes int) []byte {
	protocol := byte(protocolTCP)
	if k.udp {
		protocol = protocolUDP
	}
	if from.Is6() {
		h := make([]byte, 40, 40+transportBytes)
		h[0], h[1], h[6], h[7] = 0x60|k.tos>>4, k.tos<<4, protocol, k.ttl
		binary.BigEndian.PutUint16(h[4:], uint16(transportBytes))
		copy(h[8:], from.AsSlice())
		copy(h[24:], to.AsSlice())
		return h
	}
	h := make([]byte, 20, 20+transportBytes)
	h[0], h[1], h[6], h[8], h[9] = 0x45, k.tos, 0x40, k.ttl, protocol
	binary.BigEndian.PutUint16(h[2:], uint16(20+transportBytes))
	binary.BigEndian.PutUint16(h[4:], k.id)
	copy(h[12:], from.AsSlice())
	copy(h[16:], to.AsSlice())
	binary.BigEndian.PutUint16(h[10:], ^onesSum(h))
	return h
}

// pseudoHeader is that of a packet whose TCP or UDP header begins at start (RFC 9293 section 3.1, RFC 8200 section 8.1).
func pseudoHeader(p []byte, start int) []byte {
	protocol, addresses := p[9], p[12:20]
	if p[0]>>4 == 6 {
		protocol, addresses = p[6], p[8:40]
	}
	h := append([]byte(nil), addresses...)
	return binary.BigEndian.AppendUint32(append(h, 0, 0, 0, protocol), uint32(len(p)-start))
}

// complete gives a packet its full checksum.
func complete(p []byte, start, offset int) {
	field := p[start+offset : start+offset+2]
	field[0], field[1] = 0, 0
	sum := ^onesSum(append(pseudoHeader(p, start), p[start:]...))
	if sum == 0 && offset == 6 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(field, sum)
}

// segments does to a packet what its Offload asks for, as a plain network card would, and checks what the Offload and
// the checksums say.
func segments(t testing.TB, p tun.Packet) [][]byte {
	t.Helper()
	data, o := p.Data, p.Offload
	if data[0]>>4 == 4 && onesSum(data[:int(data[0]&15)*4]) != 0xffff {
		t.Errorf("wrong IPv4 header checksum: %x", data[:20])
	}
	if o == (tun.Offload{}) {
		return [][]byte{data}
	}
	start, offset := int(o.ChecksumStart), int(o.ChecksumOffset)
	if got := binary.BigEndian.Uint16(data[start+offset:]); got != onesSum(pseudoHeader(data, start)) {
		t.Errorf("partial checksum %04x, want %04x, of %d bytes %x",
			got, onesSum(pseudoHeader(data, start)), len(data), data[:min(len(data), 60)])
	}
	if o.Segmentation == tun.SegmentNone {
		one := append([]byte(nil), data...)
		complete(one, start, offset)
		return [][]byte{one}
	}
	headers := start + 8
	if offset == 16 {
		headers = start + int(data[start+12]>>4)*4
		if cwr := data[start+13]&flagCWR != 0; cwr != o.CWR {
			t.Errorf("CWR is %v, the offload says %v", cwr, o.CWR)
		}
	}
	var out [][]byte
	for at := headers; at < len(data); at += int(o.SegmentBytes) {
		payload := data[at:min(len(data), at+int(o.SegmentBytes))]
		out = append(out, segment(data[:headers], payload, start, offset, len(out), at-headers, at+len(payload) == len(data)))
	}
	return out
}

// segment makes the k-th segment, as tcp_gso_segment and __udp_gso_segment in Linux do.
func segment(headers, payload []byte, start, offset, k, at int, last bool) []byte {
	s := append(append([]byte(nil), headers...), payload...)
	if s[0]>>4 == 4 {
		binary.BigEndian.PutUint16(s[2:], uint16(len(s)))
		binary.BigEndian.PutUint16(s[4:], binary.BigEndian.Uint16(s[4:])+uint16(k))
		s[10], s[11] = 0, 0
		binary.BigEndian.PutUint16(s[10:], ^onesSum(s[:20]))
	} else {
		binary.BigEndian.PutUint16(s[4:], uint16(len(s)-40))
	}
	if offset == 16 {
		binary.BigEndian.PutUint32(s[start+4:], binary.BigEndian.Uint32(s[start+4:])+uint32(at))
		if k > 0 {
			s[start+13] &^= flagCWR
		}
		if !last {
			s[start+13] &^= flagFIN | flagPSH
		}
	} else {
		binary.BigEndian.PutUint16(s[start+4:], uint16(len(s)-start))
	}
	complete(s, start, offset)
	return s
}

package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// oddSum is sum for any length.
func oddSum(b []byte, initial uint16) uint16 {
	s := binary.BigEndian.AppendUint16(nil, initial)
	s = append(s, b...)
	if len(s)%2 == 1 {
		s = append(s, 0)
	}
	return sum(s)
}

func TestSumEqualsSlowSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 2100)
	for i := range buf {
		buf[i] = byte(rng.Uint32())
	}
	ones := bytes.Repeat([]byte{0xff}, 2100)
	zeros := make([]byte, 2100)
	for n := range 2050 {
		for _, b := range [][]byte{buf, ones, zeros} {
			at := rng.IntN(40)
			for _, initial := range []uint16{0, 0xffff, uint16(rng.Uint32())} {
				if got, want := Sum(b[at:at+n], initial), oddSum(b[at:at+n], initial); got != want {
					t.Fatalf("%d bytes at %d, initial %#x: %#x, want %#x", n, at, initial, got, want)
				}
			}
		}
	}
}

func TestComplete(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 2))
	for range 5000 {
		d := randomBuilder(rng, 100)
		p, want := d.build(true), d.build(false)
		start, offset, ok := TransportChecksum(p)
		if !ok || checksumIsValid(p) && !bytes.Equal(p, want) {
			t.Fatalf("place not found or partial checksum valid: %x", p)
		}
		if !Complete(p, start, offset) || !bytes.Equal(p, want) || !checksumIsValid(p) {
			t.Fatalf("got  %x\nwant %x", p, want)
		}
	}
}

func TestCompleteUDPIsNeverZero(t *testing.T) {
	d := builder{udp: true, ttl: 1, payload: []byte{0, 0}}
	p := d.build(false)
	// With its own checksum as payload the sum becomes all ones.
	d.payload = p[26:28]
	p = d.build(true)
	if !Complete(p, 20, 6) || p[26] != 0xff || p[27] != 0xff || !checksumIsValid(p) {
		t.Errorf("checksum %x", p[26:28])
	}
	d.udp, d.flags = false, tcpACK
	d.payload = []byte{0, 0}
	p = d.build(false)
	d.payload = p[36:38]
	p = d.build(true)
	if !Complete(p, 20, 16) || p[36] != 0 || p[37] != 0 || !checksumIsValid(p) {
		t.Errorf("TCP checksum %x", p[36:38])
	}
}

func TestCompleteRefuses(t *testing.T) {
	p := builder{udp: true, ttl: 1, payload: []byte("12")}.build(true)
	before := bytes.Clone(p)
	for _, c := range [][2]uint16{{19, 6}, {0, 6}, {20, 7}, {20, 10}, {30, 0}, {65535, 65534}, {29, 0}} {
		if Complete(p, c[0], c[1]) || !bytes.Equal(p, before) {
			t.Errorf("start %d, offset %d taken", c[0], c[1])
		}
	}
}

func TestTransportChecksumRefuses(t *testing.T) {
	u6 := builder{v6: true, udp: true, ttl: 1, payload: []byte("12")}
	for name, p := range map[string][]byte{
		"empty":      nil,
		"ICMP":       func() []byte { p := u6.build(true); p[6] = ProtocolICMPv6; return p }(),
		"extension":  func() []byte { p := u6.build(true); p[6] = protocolHopByHop; return p }(),
		"fragment":   func() []byte { p := u6.build(true); p[6] = protocolIPv6Fragment; return p }(),
		"UDP length": func() []byte { p := u6.build(true); p[45]--; return p }(),
		"IPv4 offset": func() []byte {
			p := builder{flags: tcpACK}.build(true)
			p[7] = 1
			return p
		}(),
		"TCP cut off": ipv4Packet(t, 1, nil),
	} {
		if _, _, ok := TransportChecksum(p); ok {
			t.Errorf("%s: found", name)
		}
		if checksumIsValid(p) {
			t.Errorf("%s: valid", name)
		}
	}
	none := builder{udp: true, payload: []byte("12")}.build(false)
	none[26], none[27] = 0, 0
	if checksumIsValid(none) {
		t.Error("UDP without a checksum has a valid one")
	}
}

func FuzzComplete(f *testing.F) {
	f.Add(builder{udp: true, payload: []byte("123")}.build(true), uint16(20), uint16(6))
	f.Add(builder{v6: true, flags: tcpACK, payload: []byte("123")}.build(true), uint16(40), uint16(16))
	f.Fuzz(func(t *testing.T, p []byte, start, offset uint16) {
		before := bytes.Clone(p)
		if !Complete(p, start, offset) {
			if !bytes.Equal(p, before) {
				t.Fatal("refused but changed")
			}
			return
		}
		at := int(start) + int(offset)
		want := ^oddSum(before[start:], 0)
		if want == 0 && offset == 6 {
			want = 0xffff
		}
		if binary.BigEndian.Uint16(p[at:]) != want {
			t.Fatalf("checksum %x, want %x", p[at:at+2], want)
		}
		copy(p[at:], before[at:at+2])
		if !bytes.Equal(p, before) {
			t.Fatal("changed more than the checksum")
		}
	})
}

// checksumIsValid reports whether p has a full TCP or UDP checksum and it is right.
func checksumIsValid(p []byte) bool {
	v := look(p)
	return v.kind == kindWhole && validChecksum(p, v)
}

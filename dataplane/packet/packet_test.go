package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"golang.org/x/net/ipv4"
)

func ipv4Packet(tb testing.TB, ttl int, payload []byte) []byte {
	tb.Helper()
	h := ipv4.Header{
		Version: 4, Len: 20, TotalLen: 20 + len(payload), TTL: ttl, Protocol: ProtocolUDP,
		Src: []byte{10, 0, 0, 1}, Dst: []byte{10, 0, 0, 2},
	}
	b, err := h.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	// Marshal writes lengths in host order on some systems; the wire wants network order.
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[10:], ^sum(b[:20]))
	return append(b, payload...)
}

// sum is the plain ones' complement sum, written the slow way as an oracle.
func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

func ipv6Packet(hopLimit byte, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = ProtocolUDP, hopLimit
	copy(b[8:], netip.MustParseAddr("fd00::1").AsSlice())
	copy(b[24:], netip.MustParseAddr("fd00::2").AsSlice())
	return append(b, payload...)
}

func TestParse(t *testing.T) {
	v4, v6 := ipv4Packet(t, 64, []byte("hello")), ipv6Packet(63, []byte("hello"))
	h, ok := Parse(v4)
	want := Header{
		Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
		Version: 4, Protocol: ProtocolUDP, HopLimit: 64,
		TransportOffset: 20, SrcPort: 'h'<<8 | 'e', DstPort: 'l'<<8 | 'l',
	}
	if !ok || h != want {
		t.Errorf("IPv4: got %+v, %v", h, ok)
	}
	h, ok = Parse(v6)
	want = Header{
		Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2"),
		Version: 6, Protocol: ProtocolUDP, HopLimit: 63,
		TransportOffset: 40, SrcPort: 'h'<<8 | 'e', DstPort: 'l'<<8 | 'l',
	}
	if !ok || h != want {
		t.Errorf("IPv6: got %+v, %v", h, ok)
	}
}

func TestParseRefuses(t *testing.T) {
	edit := func(b []byte, f func([]byte)) []byte { f(b); return b }
	for name, b := range map[string][]byte{
		"empty":                  {},
		"version 0":              make([]byte, 40),
		"version 5":              edit(ipv4Packet(t, 1, nil), func(b []byte) { b[0] = 0x55 }),
		"IPv4 truncated header":  ipv4Packet(t, 1, nil)[:19],
		"IPv4 truncated payload": ipv4Packet(t, 1, make([]byte, 9))[:28],
		"IPv4 trailing bytes":    append(ipv4Packet(t, 1, nil), 0),
		"IPv4 header too short":  edit(ipv4Packet(t, 1, nil), func(b []byte) { b[0] = 0x44 }),
		"IPv4 options past end":  edit(ipv4Packet(t, 1, nil), func(b []byte) { b[0] = 0x46 }),
		"IPv6 truncated header":  ipv6Packet(1, nil)[:39],
		"IPv6 truncated payload": ipv6Packet(1, make([]byte, 9))[:48],
		"IPv6 trailing bytes":    append(ipv6Packet(1, nil), 0),
	} {
		if h, ok := Parse(b); ok {
			t.Errorf("%s: accepted as %+v", name, h)
		}
	}
}

func TestDecrementHopLimitKeepsChecksum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		b := ipv4Packet(t, 2+rng.IntN(254), nil)
		binary.BigEndian.PutUint16(b[4:], uint16(rng.Uint32())) // identification: any checksum
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], ^sum(b))
		before := b[8]
		if !DecrementHopLimit(b) || b[8] != before-1 {
			t.Fatalf("TTL %d became %d", before, b[8])
		}
		if s := sum(b); s != 0xffff {
			t.Fatalf("checksum no longer verifies: sum %#x, packet %x", s, b)
		}
	}
}

func TestDecrementHopLimitStops(t *testing.T) {
	for _, b := range [][]byte{ipv4Packet(t, 1, nil), ipv4Packet(t, 0, nil), ipv6Packet(1, nil), ipv6Packet(0, nil)} {
		before := string(b)
		if DecrementHopLimit(b) || string(b) != before {
			t.Errorf("packet with hop limit ≤ 1 forwarded or changed: %x", b)
		}
	}
	if b := ipv6Packet(2, nil); !DecrementHopLimit(b) || b[7] != 1 {
		t.Error("IPv6 hop limit 2 not decremented to 1")
	}
}

func TestForwardable(t *testing.T) {
	for addr, want := range map[string]bool{
		"10.0.0.1": true, "8.8.8.8": true, "fd00::1": true, "2001:db8::1": true,
		"127.0.0.1": false, "169.254.1.1": false, "224.0.0.251": false, "0.0.0.0": false, "255.255.255.255": false,
		"0.1.2.3": false, "::ffff:10.0.0.1": false, "::ffff:127.0.0.1": false,
		"fe80::1": false, "ff02::1": false, "::": false, "::1": false,
	} {
		if got := Forwardable(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Forwardable(%s) = %v", addr, got)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	v4, v6 := ipv4Packet(t, 64, nil), ipv6Packet(64, nil)
	if n := testing.AllocsPerRun(100, func() { Parse(v4); Parse(v6) }); n != 0 {
		t.Errorf("%v allocations per run", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(ipv4Packet(f, 64, []byte("x")))
	f.Add(ipv6Packet(64, []byte("x")))
	f.Add([]byte{0x45})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := Parse(b)
		if !ok {
			return
		}
		if h.Version == 4 != h.Src.Is4() || h.Version == 6 != h.Dst.Is6() {
			t.Fatalf("version and addresses disagree: %+v", h)
		}
		before := h.HopLimit
		if DecrementHopLimit(b) {
			if again, ok := Parse(b); !ok || again.HopLimit != before-1 {
				t.Fatalf("packet broken by DecrementHopLimit: %+v", again)
			}
		}
	})
}

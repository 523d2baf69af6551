package packet

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestClampMSS(t *testing.T) {
	mss := func(v int) []byte { return []byte{2, 4, byte(v >> 8), byte(v)} }
	join := func(o ...[]byte) []byte { return bytes.Join(o, nil) }
	nop, end := []byte{1}, []byte{0}
	for _, c := range []struct {
		name    string
		flags   byte
		v6      bool
		options []byte
		mtu     int
		want    []byte // nil: unchanged
	}{
		{"IPv4 SYN", tcpSYN, false, mss(1460), 1420, mss(1380)},
		{"IPv4 SYN-ACK", tcpSYN | tcpACK, false, mss(1460), 1420, mss(1380)},
		{"IPv6", tcpSYN, true, mss(1440), 1420, mss(1360)},
		{"equal", tcpSYN, false, mss(1380), 1420, nil},
		{"lower", tcpSYN, false, mss(536), 1420, nil},
		{"no SYN", tcpACK, false, mss(1460), 1420, nil},
		{"absent", tcpSYN, false, []byte{1, 3, 3, 7}, 1420, nil},
		{"behind others", tcpSYN, false, join([]byte{3, 3, 7}, nop, mss(9000)), 1420, join([]byte{3, 3, 7}, nop, mss(1380))},
		{"odd place", tcpSYN, false, join(nop, mss(9000), nop, nop, nop), 1420, join(nop, mss(1380), nop, nop, nop)},
		{"behind the end", tcpSYN, false, join(end, mss(9000), nop, nop, nop), 1420, nil},
		{"wrong length", tcpSYN, false, []byte{2, 3, 9, 9}, 1420, nil},
		{"zero length", tcpSYN, false, []byte{5, 0, 2, 4}, 1420, nil},
		{"past the end", tcpSYN, false, []byte{1, 1, 1, 2}, 1420, nil},
		{"past the end 2", tcpSYN, false, []byte{1, 2, 4, 9}, 1420, nil},
		{"MTU too small", tcpSYN, false, mss(1460), 40, nil},
		{"smallest", tcpSYN, false, mss(1460), 41, mss(1)},
		{"negative", tcpSYN, true, mss(1460), -9, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, partial := range []bool{false, true} {
				d := builder{v6: c.v6, ttl: 8, flags: c.flags, options: c.options, payload: []byte("x")}
				p := d.build(partial)
				if c.want != nil {
					d.options = c.want
				}
				want := d.build(partial)
				if got, want := IsSYN(p), c.flags&tcpSYN != 0; got != want {
					t.Errorf("SYN: %v", got)
				}
				if got := ClampMSS(p, c.mtu, partial); got != (c.want != nil) || !bytes.Equal(p, want) {
					t.Errorf("changed %v\n got %x\nwant %x", got, p, want)
				}
			}
		})
	}
}

func TestClampMSSKeepsChecksums(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for range 5000 {
		d := randomBuilder(rng, 20)
		d.udp, d.flags = false, tcpSYN
		d.options = []byte{1, 2, 4, byte(rng.Uint32()), byte(rng.Uint32()), 1, 1, 1}
		if rng.IntN(2) == 0 {
			d.options = []byte{2, 4, byte(rng.Uint32()), byte(rng.Uint32())}
		}
		p := d.build(false)
		ClampMSS(p, 60+rng.IntN(1500), false)
		if !checksumIsValid(p) {
			t.Fatalf("%x", p)
		}
	}
}

func TestClampMSSLeavesFragmentsAlone(t *testing.T) {
	p := builder{flags: tcpSYN, options: []byte{2, 4, 9, 9}}.build(false)
	p[7] = 1
	if ClampMSS(p, 1280, false) {
		t.Error("changed the middle of a packet")
	}
}

func FuzzClampMSS(f *testing.F) {
	f.Add(builder{flags: tcpSYN, options: []byte{2, 4, 9, 9}}.build(false), 1280, false)
	f.Add(builder{v6: true, flags: tcpSYN, options: []byte{1, 2, 4, 9, 9, 0, 0, 0}}.build(true), 1280, true)
	f.Fuzz(func(t *testing.T, p []byte, mtu int, partial bool) {
		before, valid := bytes.Clone(p), checksumIsValid(p)
		changed := ClampMSS(p, mtu, partial)
		differ := 0
		for i := range p {
			if p[i] != before[i] {
				differ++
			}
		}
		if changed != (differ > 0) || differ > 4 {
			t.Fatalf("changed %v, %d bytes differ", changed, differ)
		}
		if changed && !partial && valid && !checksumIsValid(p) {
			t.Fatal("checksum broken")
		}
	})
}

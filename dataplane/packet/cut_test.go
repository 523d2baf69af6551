package packet

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/aethertunnel/aethertunnel/tun"
)

// cutInPlace writes each header, behind a frame header, over payload that was passed on already.
func cutInPlace(tb testing.TB, p []byte, o tun.Offload, partial bool) [][]byte {
	tb.Helper()
	const frameBytes, headroom = 3, tun.Headroom
	buf := append(make([]byte, headroom), p...)
	c, ok := NewCutter(buf[headroom:], o)
	if !ok {
		tb.Fatalf("refused: %+v, %x", o, p)
	}
	var out [][]byte
	for k := range c.Segments() {
		at, n := c.Payload(k)
		begin := headroom + at - c.HeaderBytes()
		clear(buf[begin-frameBytes : begin])
		segment := buf[begin : headroom+at+n]
		c.PutHeader(segment, k, partial)
		out = append(out, bytes.Clone(segment)) // "sealed"
		clear(segment)                          // nothing of it is needed any more
	}
	return out
}

func sameSegments(tb testing.TB, got, want [][]byte) {
	tb.Helper()
	if len(got) != len(want) {
		tb.Fatalf("%d segments, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			tb.Fatalf("segment %d of %d\n got %x\nwant %x", i, len(got), got[i], want[i])
		}
	}
}

func TestCutEqualsPlainCut(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 1000 {
		d := randomBuilder(rng, 9000)
		if i%7 == 0 && !d.v6 {
			d.ipOpts = []byte{1, 1, 1, 1, 7, 4, 4, 0}
		}
		p := d.build(true)
		segment := 1 + rng.IntN(1500)
		if i%2 == 0 {
			segment = 100 + rng.IntN(1500)
		}
		for _, partial := range []bool{true, false} {
			got := cutInPlace(t, p, offloadOf(p, segment), partial)
			sameSegments(t, got, slowCut(p, segment, partial))
			if h, ok := Parse(got[0]); !ok || h.Fragment {
				t.Fatal("segment is no packet")
			}
			if !partial {
				for _, s := range got {
					if !checksumIsValid(s) {
						t.Fatalf("bad checksum: %x", s)
					}
				}
			}
		}
	}
}

func TestCutFlags(t *testing.T) {
	d := builder{ttl: 1, flags: tcpACK | tcpPSH | tcpFIN | tcpCWR | tcpECE, payload: make([]byte, 25), id: 0xffff}
	p := d.build(true)
	got := cutInPlace(t, p, offloadOf(p, 10), true)
	for i, want := range []byte{tcpACK | tcpCWR | tcpECE, tcpACK | tcpECE, tcpACK | tcpPSH | tcpFIN | tcpECE} {
		if flags := got[i][20+tcpFlagsOffset]; flags != want {
			t.Errorf("segment %d has flags %#x, want %#x", i, flags, want)
		}
	}
	if got[1][4] != 0 || got[1][5] != 0 || got[2][5] != 1 {
		t.Error("identification does not wrap")
	}
}

func TestCutterRefuses(t *testing.T) {
	tcp4 := builder{ttl: 9, flags: tcpACK, payload: make([]byte, 100)}
	udp6 := builder{v6: true, udp: true, ttl: 9, payload: make([]byte, 100)}
	good, good6 := offloadOf(tcp4.build(true), 10), offloadOf(udp6.build(true), 10)
	for name, c := range map[string]struct {
		d      builder
		o      tun.Offload
		packet func([]byte) []byte
		change func(*tun.Offload)
	}{
		"no segmentation":   {d: tcp4, o: good, change: func(o *tun.Offload) { o.Segmentation = tun.SegmentNone }},
		"unknown":           {d: tcp4, o: good, change: func(o *tun.Offload) { o.Segmentation = 99 }},
		"other version":     {d: tcp4, o: good, change: func(o *tun.Offload) { o.Segmentation = tun.SegmentTCP6 }},
		"other protocol":    {d: tcp4, o: good, change: func(o *tun.Offload) { o.Segmentation = tun.SegmentUDP }},
		"TCP for UDP":       {d: udp6, o: good6, change: func(o *tun.Offload) { o.Segmentation = tun.SegmentTCP6 }},
		"size 0":            {d: tcp4, o: good, change: func(o *tun.Offload) { o.SegmentBytes = 0 }},
		"full checksum":     {d: tcp4, o: good, change: func(o *tun.Offload) { o.PartialChecksum = false }},
		"other start":       {d: tcp4, o: good, change: func(o *tun.Offload) { o.ChecksumStart = 24 }},
		"other offset":      {d: tcp4, o: good, change: func(o *tun.Offload) { o.ChecksumOffset = 6 }},
		"no payload":        {d: builder{ttl: 9, flags: tcpACK}, o: good},
		"SYN":               {d: builder{ttl: 9, flags: tcpACK | tcpSYN, payload: make([]byte, 30)}, o: good},
		"RST":               {d: builder{ttl: 9, flags: tcpACK | tcpRST, payload: make([]byte, 30)}, o: good},
		"empty":             {d: tcp4, o: good, packet: func(p []byte) []byte { return nil }},
		"truncated":         {d: tcp4, o: good, packet: func(p []byte) []byte { return p[:len(p)-1] }},
		"fragment":          {d: tcp4, o: good, packet: func(p []byte) []byte { p[6] = 0x20; return p }},
		"options past end":  {d: tcp4, o: good, packet: func(p []byte) []byte { p[32] = 0xf0; p[2], p[3] = 0, 60; return p[:60] }},
		"TCP header short":  {d: tcp4, o: good, packet: func(p []byte) []byte { p[32] = 0x40; return p }},
		"UDP length":        {d: udp6, o: good6, packet: func(p []byte) []byte { p[45]++; return p }},
		"extension headers": {d: udp6, o: good6, packet: func(p []byte) []byte { p[6] = protocolDestination; return p }},
	} {
		p := c.d.build(true)
		if c.packet != nil {
			p = c.packet(p)
		}
		if c.change != nil {
			c.change(&c.o)
		}
		if _, ok := NewCutter(p, c.o); ok {
			t.Errorf("%s: taken", name)
		}
	}
	for _, d := range []builder{tcp4, udp6} {
		p := d.build(true)
		if _, ok := NewCutter(p, offloadOf(p, 10)); !ok {
			t.Errorf("refused %+v", d)
		}
	}
}

func FuzzCutter(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 12 {
		p := randomBuilder(rng, 200).build(true)
		o := offloadOf(p, 60)
		f.Add(p, uint8(o.Segmentation), uint16(60), true, o.ChecksumStart, o.ChecksumOffset)
	}
	f.Fuzz(func(t *testing.T, p []byte, kind uint8, size uint16, partial bool, start, offset uint16) {
		o := tun.Offload{
			Segmentation: tun.Segmentation(kind), SegmentBytes: size, PartialChecksum: partial,
			ChecksumStart: start, ChecksumOffset: offset,
		}
		if len(p) > tun.MaxPacketBytes || size > 0 && len(p)/int(size) > 4096 {
			return
		}
		if _, ok := NewCutter(p, o); !ok {
			return
		}
		for _, partial := range []bool{true, false} {
			sameSegments(t, cutInPlace(t, p, o, partial), slowCut(p, int(size), partial))
		}
	})
}

package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/aethertunnel/aethertunnel/tun"
)

// arrival is a packet as a Joiner gets it.
type arrival struct {
	bytes   []byte
	partial bool
	tag     uint32
}

// result is a copy of what a Joiner gave back.
type result struct {
	bytes   []byte
	pieces  int
	offload tun.Offload
	tag     uint32
}

// joinAll runs arrivals through a Joiner.
func joinAll(tb testing.TB, j *Joiner, in []arrival) []result {
	tb.Helper()
	var out []result
	drain := func() {
		for {
			m, ok := j.Next()
			if !ok {
				return
			}
			r := result{bytes: bytes.Join(m.Pieces, nil), pieces: len(m.Pieces), offload: m.Offload, tag: m.Tag}
			if len(r.bytes) != m.Bytes {
				tb.Fatalf("%d bytes, said %d", len(r.bytes), m.Bytes)
			}
			out = append(out, r)
		}
	}
	for _, a := range in {
		switch j.Add(bytes.Clone(a.bytes), a.partial, a.tag) {
		case JoinFull:
			drain()
			if j.Add(bytes.Clone(a.bytes), a.partial, a.tag) != JoinTaken {
				tb.Fatal("not taken when empty")
			}
		case JoinRefused:
			if _, _, ok := TransportChecksum(a.bytes); ok || !a.partial {
				tb.Fatalf("refused %x", a.bytes)
			}
		case JoinTaken:
		}
	}
	drain()
	return out
}

// mayFollow says by cutting whether b may become a part of the super-packet that the packets of a are joined
// to: if the cut gives exactly them. It is the plain definition that Joiner.follows is tested against.
func mayFollow(run []arrival, b arrival, config JoinConfig) bool {
	all := append(append([]arrival(nil), run...), b)
	for _, a := range all {
		start, offset, ok := TransportChecksum(a.bytes)
		switch {
		case !ok, !a.partial && (!config.VerifyFull || !checksumIsValid(a.bytes)):
			return false
		case offset == 6 && (!config.UDP || binary.BigEndian.Uint16(a.bytes[start+6:]) == 0),
			offset == 16 && (!config.TCP || a.bytes[start+13]&0x37&^0x09 != 0x10):
			return false
		case a.bytes[0]>>4 == 4 && a.bytes[0] != 0x45, a.tag != b.tag:
			return false
		}
	}
	first := all[0].bytes
	transport, payload := slowPlaces(first)
	segment := len(first) - payload
	super := bytes.Clone(first)
	for _, a := range all[1:] {
		_, at := slowPlaces(a.bytes)
		if at == len(a.bytes) {
			return false
		}
		super = append(super, a.bytes[at:]...)
	}
	if segment == 0 || len(super) > 65535 || len(all) > 64 {
		return false
	}
	udp := offloadOf(first, 0).Segmentation == tun.SegmentUDP
	if !udp {
		super[transport+13] |= b.bytes[slowTransport(b.bytes)+13] & 0x09
	}
	slowFix(super, transport, true)
	fixed := len(all) > 1 && all[0].bytes[0]>>4 == 4 && all[0].bytes[6] == 0x40 &&
		bytes.Equal(all[0].bytes[4:6], all[1].bytes[4:6])
	cut := slowCut(super, segment, true)
	if len(cut) != len(all) {
		return false
	}
	for i, a := range all {
		t, _ := slowPlaces(a.bytes)
		want := bytes.Clone(a.bytes)
		slowFix(want, t, true)
		if a.bytes[0]>>4 == 4 && !bytes.Equal(want[:10], a.bytes[:10]) || a.bytes[0]>>4 == 4 && sum(a.bytes[:20]) != 0xffff {
			return false
		}
		if fixed {
			copy(cut[i][4:6], first[4:6])
			slowFix(cut[i], t, true)
		}
		if !bytes.Equal(cut[i], want) {
			return false
		}
	}
	return true
}

func slowTransport(p []byte) int { t, _ := slowPlaces(p); return t }

// slowJoin groups arrivals by the definition: indices of packets that become one.
func slowJoin(in []arrival, config JoinConfig) [][]int {
	var runs [][]int
	last := map[string]int{} // flow to its open run
	for i, a := range in {
		v := look(a.bytes)
		if v.kind < kindFlow {
			if v.kind == kindStray {
				clear(last)
			}
			runs = append(runs, []int{i})
			continue
		}
		t := slowTransport(a.bytes)
		addresses := a.bytes[12:20]
		if a.bytes[0]>>4 == 6 {
			addresses = a.bytes[8:40]
		}
		key := string(binary.BigEndian.AppendUint32(nil, a.tag)) + string(v.protocol) + string(addresses) +
			string(a.bytes[t:t+4])
		if at, ok := last[key]; ok {
			var run []arrival
			for _, k := range runs[at] {
				run = append(run, in[k])
			}
			if mayFollow(run, a, config) {
				runs[at] = append(runs[at], i)
				continue
			}
		}
		last[key] = len(runs)
		runs = append(runs, []int{i})
	}
	return runs
}

// checkJoin compares a Joiner with slowJoin and its output with its input.
func checkJoin(tb testing.TB, in []arrival, config JoinConfig) (joined int) {
	tb.Helper()
	var kept []arrival
	for _, a := range in {
		if _, _, ok := TransportChecksum(a.bytes); ok || !a.partial {
			kept = append(kept, a)
		}
	}
	out := joinAll(tb, NewJoiner(config), in)
	runs := slowJoin(kept, config)
	if len(out) != len(runs) {
		tb.Fatalf("%d packets, want %d (%v)", len(out), len(runs), runs)
	}
	for i, run := range runs {
		got, first := out[i], kept[run[0]]
		if got.pieces != len(run) || got.tag != first.tag {
			tb.Fatalf("packet %d has %d pieces for tag %d, want %v for %d", i, got.pieces, got.tag, run, first.tag)
		}
		if len(run) == 1 {
			if !bytes.Equal(got.bytes, first.bytes) {
				tb.Fatalf("changed a packet\n got %x\nwant %x", got.bytes, first.bytes)
			}
			want := tun.Offload{}
			if first.partial {
				want = offloadOf(first.bytes, 0)
				want.Segmentation, want.CWR = tun.SegmentNone, false
			}
			if got.offload != want {
				tb.Fatalf("offload %+v, want %+v", got.offload, want)
			}
			continue
		}
		joined++
		checkSuper(tb, got, kept, run)
	}
	return joined
}

// checkSuper cuts a super-packet again.
func checkSuper(tb testing.TB, got result, in []arrival, run []int) {
	tb.Helper()
	c, ok := NewCutter(got.bytes, got.offload)
	if _, payload := slowPlaces(in[run[0]].bytes); !ok ||
		got.offload != offloadOf(got.bytes, len(in[run[0]].bytes)-payload) {
		tb.Fatalf("can not be cut: %+v", got.offload)
	}
	if c.Segments() != len(run) {
		tb.Fatalf("cut to %d, want %d", c.Segments(), len(run))
	}
	cut := cutInPlace(tb, got.bytes, got.offload, true)
	for k, at := range run {
		want := bytes.Clone(in[at].bytes)
		transport := slowTransport(want)
		slowFix(want, transport, true) // only changes a checksum that was full
		if want[0]>>4 == 4 && want[6] == 0x40 {
			copy(cut[k][4:6], want[4:6]) // may have been constant
			slowFix(cut[k], transport, true)
		}
		if !bytes.Equal(cut[k], want) {
			tb.Fatalf("segment %d of %d\n got %x\nwant %x", k, len(run), cut[k], want)
		}
	}
}

// randomArrivals is a mix of cut super-packets of few flows, with faults.
func randomArrivals(rng *rand.Rand, faults bool) []arrival {
	var streams [][]arrival
	for range 1 + rng.IntN(6) {
		d := randomBuilder(rng, 4000)
		d.flow = byte(len(streams) % 3)
		partial, tag := rng.IntN(2) == 0, uint32(rng.IntN(8)/7)
		segment := 1 + rng.IntN(1000)
		if len(d.payload)/segment > 100 {
			segment = 400
		}
		var s []arrival
		cut := slowCut(d.build(true), segment, partial)
		if rng.IntN(4) == 0 && !d.v6 { // constant identification
			for _, p := range cut {
				copy(p[4:6], cut[0][4:6])
				slowFix(p, slowTransport(p), partial)
			}
		}
		for _, p := range cut {
			s = append(s, arrival{p, partial, tag})
		}
		streams = append(streams, s)
	}
	var in []arrival
	for len(streams) > 0 {
		k := rng.IntN(len(streams))
		n := min(1+rng.IntN(20), len(streams[k]))
		in = append(in, streams[k][:n]...)
		if streams[k] = streams[k][n:]; len(streams[k]) == 0 {
			streams = append(streams[:k], streams[k+1:]...)
		}
	}
	if faults {
		for range rng.IntN(8) {
			breakArrival(rng, &in[rng.IntN(len(in))])
		}
		k := rng.IntN(len(in))
		in[k], in[0] = in[0], in[k]
	}
	return in
}

// breakArrival changes one header byte; sometimes the checksums follow.
func breakArrival(rng *rand.Rand, a *arrival) {
	p := bytes.Clone(a.bytes)
	transport, payload := slowPlaces(p)
	p[rng.IntN(payload)] ^= 1 << rng.IntN(8)
	if _, ok := Parse(p); !ok {
		return
	}
	if v := look(p); rng.IntN(3) > 0 && v.kind == kindWhole && v.transport == transport {
		slowFix(p, transport, a.partial)
	}
	a.bytes = p
}

func TestJoinEqualsPlainJoin(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	joined := 0
	for i := range 1000 {
		in := randomArrivals(rng, i%2 == 0)
		joined += checkJoin(t, in, JoinConfig{
			TCP: rng.IntN(8) > 0, UDP: rng.IntN(4) > 0, VerifyFull: rng.IntN(3) > 0, Seed: rng.Uint64(),
		})
	}
	if joined < 1000 {
		t.Errorf("only %d super-packets: the test tests nothing", joined)
	}
}

// stream is n segments of a flow, with what each test changes.
func stream(d builder, n, bytes int) []builder {
	out := make([]builder, n)
	for i := range out {
		out[i] = d
		out[i].id = d.id + uint16(i)
		out[i].seq = d.seq + uint32(i*bytes)
		out[i].payload = make([]byte, bytes)
		for k := range out[i].payload {
			out[i].payload[k] = byte(i + k)
		}
	}
	return out
}

func TestJoinRules(t *testing.T) {
	tcp4 := builder{ttl: 64, id: 0xfffe, seq: 0xffffff00, flags: tcpACK, options: timestamps}
	tcp6, udp4, udp6 := tcp4, tcp4, tcp4
	tcp6.v6 = true
	udp4.udp, udp4.options = true, nil
	udp6.udp, udp6.v6, udp6.options = true, true, nil
	type change = func(s []builder)
	at := func(i int, f func(*builder)) change { return func(s []builder) { f(&s[i]) } }
	for _, c := range []struct {
		name   string
		d      builder
		change change
		want   []int // pieces of each packet that comes out, of 4
	}{
		{"TCP over IPv4", tcp4, nil, []int{4}},
		{"TCP over IPv6", tcp6, nil, []int{4}},
		{"UDP over IPv4", udp4, nil, []int{4}},
		{"UDP over IPv6", udp6, nil, []int{4}},
		{"shorter last", tcp4, at(3, func(b *builder) { b.payload = b.payload[:9] }), []int{4}},
		{"shorter ends", udp4, at(1, func(b *builder) { b.payload = b.payload[:9] }), []int{2, 2}},
		{"shorter ends TCP", tcp4, at(1, func(b *builder) { b.payload = b.payload[:9] }), []int{2, 2}},
		{"longer", udp4, at(2, func(b *builder) { b.payload = append(b.payload, 1) }), []int{2, 2}},
		{"PSH ends", tcp4, at(1, func(b *builder) { b.flags |= tcpPSH }), []int{2, 2}},
		{"PSH first", tcp6, at(0, func(b *builder) { b.flags |= tcpPSH }), []int{1, 3}},
		{"FIN last", tcp4, at(3, func(b *builder) { b.flags |= tcpPSH | tcpFIN }), []int{4}},
		{"CWR first", tcp4, at(0, func(b *builder) { b.flags |= tcpCWR }), []int{4}},
		{"CWR later", tcp4, at(2, func(b *builder) { b.flags |= tcpCWR }), []int{2, 2}},
		{"ECE", tcp4, at(2, func(b *builder) { b.flags |= tcpECE }), []int{2, 1, 1}},
		{"RST", tcp4, at(2, func(b *builder) { b.flags |= tcpRST }), []int{2, 1, 1}},
		{"SYN", tcp4, at(0, func(b *builder) { b.flags |= tcpSYN }), []int{1, 3}},
		{"URG", tcp4, at(2, func(b *builder) { b.flags |= tcpURG }), []int{2, 1, 1}},
		{"no ACK", tcp4, at(0, func(b *builder) { b.flags = 0 }), []int{1, 3}},
		{"pure ACK", tcp4, at(2, func(b *builder) { b.payload = nil }), []int{2, 1, 1}},
		{"other ack", tcp4, at(2, func(b *builder) { b.ack++ }), []int{2, 1, 1}},
		{"other window", tcp4, at(2, func(b *builder) { b.window++ }), []int{2, 1, 1}},
		{"other options", tcp4, at(2, func(b *builder) { b.options = bytes.Repeat([]byte{1}, 12) }), []int{2, 1, 1}},
		{"fewer options", tcp4, at(2, func(b *builder) { b.options = nil }), []int{2, 1, 1}},
		{"lost segment", tcp4, at(1, func(b *builder) { b.flow = 9 }), []int{1, 1, 2}},
		{"ECN IPv4", tcp4, at(2, func(b *builder) { b.tos |= 3 }), []int{2, 1, 1}},
		{"ECN IPv6", udp6, at(2, func(b *builder) { b.tos |= 3 }), []int{2, 1, 1}},
		{"DSCP", tcp6, at(2, func(b *builder) { b.tos |= 0x80 }), []int{2, 1, 1}},
		{"TTL", tcp4, at(2, func(b *builder) { b.ttl-- }), []int{2, 1, 1}},
		{"hop limit", tcp6, at(2, func(b *builder) { b.ttl-- }), []int{2, 1, 1}},
		{"DF", tcp4, at(2, func(b *builder) { b.df = true }), []int{2, 1, 1}},
		{"identification", udp4, at(2, func(b *builder) { b.id += 5 }), []int{2, 1, 1}},
		{"constant identification", tcp4, func(s []builder) {
			for i := range s {
				s[i].id = 0
			}
		}, []int{1, 1, 1, 1}},
		{"constant identification, DF", tcp4, func(s []builder) {
			for i := range s {
				s[i].id, s[i].df = 0, true
			}
		}, []int{4}},
		{"first constant, then counting", udp4, func(s []builder) {
			for i, id := range []uint16{7, 7, 8, 9} {
				s[i].id, s[i].df = id, true
			}
		}, []int{2, 2}},
		{"first counting, then constant", udp4, func(s []builder) {
			for i, id := range []uint16{7, 8, 8, 8} {
				s[i].id, s[i].df = id, true
			}
		}, []int{2, 2}},
		{"counting, then as the first", udp4, func(s []builder) {
			for i, id := range []uint16{7, 8, 7, 7} {
				s[i].id, s[i].df = id, true
			}
		}, []int{2, 2}},
		{"IPv4 options", udp4, at(2, func(b *builder) { b.ipOpts = []byte{1, 1, 1, 1} }), []int{2, 1, 1}},
		{"other flow between", tcp4, at(2, func(b *builder) { b.flow = 1 }), []int{2, 1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := stream(c.d, 4, 100)
			if c.change != nil {
				c.change(s)
			}
			for _, partial := range []bool{true, false} {
				var in []arrival
				for _, b := range s {
					in = append(in, arrival{bytes: b.build(partial), partial: partial})
				}
				config := JoinConfig{TCP: true, UDP: true, VerifyFull: true}
				var got []int
				for _, r := range joinAll(t, NewJoiner(config), in) {
					got = append(got, r.pieces)
				}
				if !equalInts(got, c.want) {
					t.Errorf("partial %v: pieces %v, want %v", partial, got, c.want)
				}
				checkJoin(t, in, config)
			}
		})
	}
}

func equalInts(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func pieces(results []result) (n []int) {
	for _, r := range results {
		n = append(n, r.pieces)
	}
	return n
}

func TestJoinBounds(t *testing.T) {
	var many, large, full []arrival
	for _, b := range stream(builder{ttl: 1, flags: tcpACK}, 130, 10) {
		many = append(many, arrival{b.build(true), true, 0})
	}
	for _, b := range stream(builder{ttl: 1, v6: true, udp: true}, 60, 2000) {
		large = append(large, arrival{b.build(true), true, 0})
	}
	for _, b := range stream(builder{ttl: 1, udp: true}, JoinPackets+1, 10) {
		full = append(full, arrival{b.build(true), true, 0})
	}
	config := JoinConfig{TCP: true, UDP: true}
	if got := pieces(joinAll(t, NewJoiner(config), many)); !equalInts(got, []int{64, 64, 2}) {
		t.Errorf("130 segments: %v", got)
	}
	if got := pieces(joinAll(t, NewJoiner(config), large)); !equalInts(got, []int{32, 28}) {
		t.Errorf("60 segments of 2000 bytes: %v", got)
	}
	if got := pieces(joinAll(t, NewJoiner(config), full)); !equalInts(got, []int{64, 64, 64, 64, 64, 64, 64, 64, 1}) {
		t.Errorf("more than a Joiner holds: %v", got)
	}
}

func TestJoinManyFlows(t *testing.T) {
	for flows, want := range map[int]int{joinFlows: joinFlows, joinFlows + 1: 4 * (joinFlows + 1)} {
		var in []arrival
		for i := range 4 {
			for f := range flows {
				b := stream(builder{ttl: 1, udp: true, flow: byte(f)}, 4, 10)[i]
				in = append(in, arrival{b.build(true), true, 0})
			}
		}
		if got := len(joinAll(t, NewJoiner(JoinConfig{UDP: true}), in)); got != want {
			t.Errorf("%d interleaved flows give %d packets, want %d", flows, got, want)
		}
	}
}

func TestJoinKeepsBadChecksumsApart(t *testing.T) {
	var in []arrival
	for i, b := range stream(builder{ttl: 1, flags: tcpACK}, 6, 50) {
		p := b.build(false)
		if i == 2 {
			p[45] ^= 4
		}
		in = append(in, arrival{p, false, 0})
	}
	out := joinAll(t, NewJoiner(JoinConfig{TCP: true, VerifyFull: true}), in)
	if got := pieces(out); !equalInts(got, []int{2, 1, 3}) {
		t.Fatalf("%v", got)
	}
	if !bytes.Equal(out[1].bytes, in[2].bytes) || out[1].offload != (tun.Offload{}) {
		t.Error("the bad packet was changed")
	}
}

func TestJoinStopsAtFragments(t *testing.T) {
	s := stream(builder{ttl: 1, udp: true}, 3, 50)
	fragment := s[0].build(false)
	fragment[6] = 0x20
	in := []arrival{{s[0].build(true), true, 0}, {s[1].build(true), true, 0}, {fragment, false, 0}, {s[2].build(true), true, 0}}
	if got := pieces(joinAll(t, NewJoiner(JoinConfig{UDP: true}), in)); !equalInts(got, []int{2, 1, 1}) {
		t.Errorf("%v", got)
	}
	if NewJoiner(JoinConfig{}).Add(fragment, true, 0) != JoinRefused {
		t.Error("took a fragment with a partial checksum")
	}
}

func TestJoinPieceBoundFitsDevice(t *testing.T) {
	if JoinPieces > tun.MaxPieces {
		t.Errorf("%d pieces, devices take %d", JoinPieces, tun.MaxPieces)
	}
}

// FuzzJoiner makes arrivals of a seed and then changes bytes of them as the fuzzer says: pairs of position
// and value.
func FuzzJoiner(f *testing.F) {
	for i := range uint64(10) {
		f.Add(i, []byte{0, 0, 8, 1, 0, 13, 9}, byte(i))
	}
	f.Fuzz(func(t *testing.T, seed uint64, edits []byte, flags byte) {
		in := randomArrivals(rand.New(rand.NewPCG(seed, 1)), flags&8 != 0)
		for ; len(edits) >= 4; edits = edits[4:] {
			a := &in[int(edits[0])%len(in)]
			p := bytes.Clone(a.bytes)
			at := (int(edits[1])<<8 | int(edits[2])) % len(p)
			p[at] ^= edits[3]
			if _, ok := Parse(p); !ok {
				continue
			}
			if v := look(p); flags&16 != 0 && v.kind == kindWhole {
				slowFix(p, v.transport, a.partial)
			}
			a.bytes = p
		}
		checkJoin(t, in, JoinConfig{TCP: flags&1 != 0, UDP: flags&2 != 0, VerifyFull: flags&4 != 0, Seed: seed})
	})
}

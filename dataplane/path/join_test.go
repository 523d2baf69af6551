package path

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

const roomy = 64 << 20

// cut returns the pieces of a packet, header included.
func cut(t testing.TB, s *Splitter, packet []byte, room int) [][]byte {
	t.Helper()
	plan, ok := s.Split(len(packet), room)
	if !ok {
		t.Fatalf("cannot split %d bytes into pieces of %d", len(packet), room)
	}
	pieces := make([][]byte, plan.Pieces())
	for k := range pieces {
		from, to := plan.Piece(k)
		pieces[k] = append(make([]byte, PieceHeaderBytes), packet[from:to]...)
		plan.PutHeader((*[PieceHeaderBytes]byte)(pieces[k]), k)
	}
	return pieces
}

func packetOf(n int, random *rand.Rand) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(random.Uint32())
	}
	return p
}

func TestPieceHeader(t *testing.T) {
	var s Splitter
	s.next = 0x0102
	pieces := cut(t, &s, []byte("abcde"), PieceHeaderBytes+2)
	for i, want := range []string{"\x01\x03\x00ab", "\x01\x03\x01cd", "\x01\x03\x82e"} {
		if string(pieces[i]) != want {
			t.Errorf("piece %d is %x, want %x", i, pieces[i], want)
		}
	}
}

func TestSplitLimits(t *testing.T) {
	var s Splitter
	for _, c := range []struct{ packet, room, pieces int }{
		{0, 1000, 0},
		{-1, 1000, 0},
		{MaxPacketBytes + 1, 65000, 0},
		{1, 3, 0},
		{1, 0, 0},
		{1, 4, 1},
		{1280, 1283, 1},
		{1281, 1283, 2},
		{9, 5, 5},
		{128, 4, 128},
		{129, 4, 0},
		{10, 11, 2},
		{MaxPacketBytes, 548 - 32, 128}, // the longest packet crosses the smallest path
		{MaxPacketBytes, 512 + 3, 128},
		{MaxPacketBytes, 511 + 3, 0},
	} {
		plan, ok := s.Split(c.packet, c.room)
		if ok != (c.pieces > 0) || plan.Pieces() != c.pieces {
			t.Errorf("%d bytes, room for %d: %d pieces, %v; want %d", c.packet, c.room, plan.Pieces(), ok, c.pieces)
		}
		at := 0
		for k := range plan.Pieces() {
			from, to := plan.Piece(k)
			if from != at || to <= from || to-from > c.room-PieceHeaderBytes {
				t.Errorf("%d bytes, room for %d: piece %d is [%d, %d)", c.packet, c.room, k, from, to)
			}
			at = to
		}
		if ok && at != c.packet {
			t.Errorf("%d bytes: pieces end at %d", c.packet, at)
		}
	}
}

// Packets of all sizes, their pieces in any order, many at a time.
func TestJoinAnyOrder(t *testing.T) {
	buffers := NewPieceBuffers(roomy)
	for seed := range seeds(500) {
		random := rand.New(rand.NewPCG(seed, 1))
		var s Splitter
		s.next = uint16(random.Uint32())
		j := NewJoiner(buffers)
		type piece struct {
			data []byte
			of   int
		}
		var pieces []piece
		var packets [][]byte
		for i := range 1 + random.IntN(8) {
			room := 516 + random.IntN(1000)
			longest := 3000
			if i == 0 {
				longest = MaxPacketBytes
			}
			packets = append(packets, packetOf(1+random.IntN(longest), random))
			for _, p := range cut(t, &s, packets[i], room) {
				pieces = append(pieces, piece{p, i})
			}
		}
		random.Shuffle(len(pieces), func(a, b int) { pieces[a], pieces[b] = pieces[b], pieces[a] })
		joined := map[int][]byte{}
		for n, p := range pieces {
			got, result := add(j, p.data, uint64(n), int64(n))
			if result == PieceDropped {
				t.Fatalf("seed %d: dropped: %+v", seed, j.stats)
			}
			if result == PieceJoined {
				joined[p.of] = got // all stay until Release
			}
		}
		for i, want := range packets {
			if !bytes.Equal(joined[i], want) {
				t.Fatalf("seed %d: packet %d of %d bytes differs", seed, i, len(want))
			}
		}
		if stats := j.TakeStats(); stats != (JoinStats{Joined: uint64(len(packets))}) || j.Unfinished() != 0 {
			t.Fatalf("seed %d: %+v", seed, stats)
		}
		j.Release()
		if buffers.InUseBytes() != 0 || j.bytes != 0 {
			t.Fatalf("seed %d: %d bytes in use after all is done", seed, buffers.InUseBytes())
		}
	}
}

func TestJoinRefuses(t *testing.T) {
	long := func(index byte, last bool, n int) string {
		if last {
			index |= lastPiece
		}
		return string([]byte{0, 1, index}) + string(make([]byte, n))
	}
	for _, c := range []struct {
		name   string
		pieces []string
		want   JoinStats
	}{
		{"empty", []string{""}, JoinStats{Malformed: 1}},
		{"no byte of packet", []string{"\x00\x01\x80"}, JoinStats{Malformed: 1}},
		{"twice", []string{"\x00\x01\x00a", "\x00\x01\x00a", "\x00\x01\x81b"}, JoinStats{Duplicate: 1, Ignored: 1}},
		{"last twice", []string{"\x00\x01\x81a", "\x00\x01\x81a", "\x00\x01\x00a"}, JoinStats{Duplicate: 1, Ignored: 1}},
		{"two last ones", []string{"\x00\x01\x81a", "\x00\x01\x82a"}, JoinStats{Inconsistent: 1}},
		{"behind the last", []string{"\x00\x01\x81a", "\x00\x01\x02a"}, JoinStats{Inconsistent: 1}},
		{"last too early", []string{"\x00\x01\x02a", "\x00\x01\x81a"}, JoinStats{Inconsistent: 1}},
		{"last of one, another there", []string{"\x00\x01\x02a", "\x00\x01\x80a"}, JoinStats{Inconsistent: 1}},
		{"unequal", []string{"\x00\x01\x00a", "\x00\x01\x01ab"}, JoinStats{Inconsistent: 1}},
		{"last too long", []string{"\x00\x01\x00a", "\x00\x01\x81ab"}, JoinStats{Inconsistent: 1}},
		{"last too long, first", []string{"\x00\x01\x81ab", "\x00\x01\x00a"}, JoinStats{Inconsistent: 1}},
		{"same index, last and not", []string{"\x00\x01\x01a", "\x00\x01\x81a"}, JoinStats{Duplicate: 1}},
		{"over-long", []string{long(100, false, 1000)}, JoinStats{TooLong: 1}},
		{"over-long last", []string{long(0, false, 1000), long(66, true, 1000)}, JoinStats{TooLong: 1}},
		{"over-long last, first", []string{long(66, true, 1000)}, JoinStats{TooLong: 1}},
		{"over-long by the last", []string{long(64, true, 100), long(0, false, 1100)}, JoinStats{TooLong: 1}},
		{"longest", []string{long(0, false, 65534), long(1, true, 1)}, JoinStats{Joined: 1}},
		{"one more", []string{long(0, false, 65534), long(1, true, 2)}, JoinStats{TooLong: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			buffers := NewPieceBuffers(roomy)
			j := NewJoiner(buffers)
			for n, p := range c.pieces {
				add(j, []byte(p), uint64(n), 0)
			}
			if got := j.TakeStats(); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			} else if got.Dropped() == 0 && got.Joined == 0 {
				t.Error("neither joined nor dropped")
			}
			j.Close()
			if buffers.InUseBytes() != 0 || j.bytes != 0 || j.Unfinished() != 0 {
				t.Errorf("in use: %d, %d bytes, %d packets", buffers.InUseBytes(), j.bytes, j.Unfinished())
			}
		})
	}
}

func TestJoinSinglePiece(t *testing.T) {
	j := NewJoiner(NewPieceBuffers(0))
	if p, result := add(j, []byte("\x00\x01\x80whole"), 0, 0); result != PieceJoined || string(p) != "whole" {
		t.Errorf("%q, %v", p, result)
	}
}

func TestJoinExpires(t *testing.T) {
	buffers := NewPieceBuffers(roomy)
	j := NewJoiner(buffers)
	add(j, []byte("\x00\x01\x00a"), 0, 0)
	if _, result := add(j, []byte("\x00\x01\x81b"), 1, UnfinishedNanos); result != PieceTaken {
		t.Fatalf("%v: joined after 500 ms", result)
	}
	if got := j.TakeStats(); got != (JoinStats{Expired: 1}) {
		t.Errorf("%+v", got)
	}
	j.Expire(2*UnfinishedNanos - 1)
	if j.Unfinished() != 1 {
		t.Error("expired too early")
	}
	j.Expire(2 * UnfinishedNanos)
	if j.Unfinished() != 0 || buffers.InUseBytes() != 0 {
		t.Error("not expired")
	}
}

// The 16-bit id comes round: pieces of different packets with one id are not joined.
func TestJoinIDComesRound(t *testing.T) {
	j := NewJoiner(NewPieceBuffers(roomy))
	add(j, []byte("\x00\x01\x00a"), 1000, 0)
	if _, result := add(j, []byte("\x00\x01\x81b"), 1000+65536, 1); result != PieceTaken {
		t.Fatalf("%v", result)
	}
	if p, result := add(j, []byte("\x00\x01\x00c"), 1000+65535, 2); result != PieceJoined || string(p) != "cb" {
		t.Fatalf("%q %v", p, result)
	}
	if got := j.TakeStats(); got != (JoinStats{Joined: 1, Expired: 1}) {
		t.Errorf("%+v", got)
	}
}

func TestJoinBounds(t *testing.T) {
	buffers := NewPieceBuffers(roomy)
	j := NewJoiner(buffers)
	for i := range MaxUnfinished + 10 {
		add(j, []byte{0, byte(i), 0, 'a'}, uint64(i), int64(i))
	}
	if j.Unfinished() != MaxUnfinished {
		t.Errorf("%d unfinished", j.Unfinished())
	}
	if got := j.TakeStats(); got != (JoinStats{Evicted: 10}) {
		t.Errorf("%+v", got)
	}
	for id := byte(10); id < MaxUnfinished+10; id++ {
		if _, result := add(j, []byte{0, id, 0x81, 'b'}, 100, 100); result != PieceJoined {
			t.Errorf("%d was evicted", id)
		}
	}

	// One lane cannot have more than its share, all lanes together not more than all.
	j.Close()
	for i := range MaxUnfinished {
		add(j, append([]byte{0, byte(i), 40}, make([]byte, 1000)...), uint64(i), 0)
	}
	if got := buffers.InUseBytes(); got == 0 || got > maxUnfinishedBytes {
		t.Errorf("%d bytes in use by one lane", got)
	}
	if j.TakeStats().NoBuffer == 0 {
		t.Error("nothing was refused")
	}
	small := NewPieceBuffers(4096)
	for i := range 4 {
		add(NewJoiner(small), []byte{0, 0, byte(i), 'a'}, 0, 0)
	}
	if small.InUseBytes() > 4096 {
		t.Errorf("%d bytes in use", small.InUseBytes())
	}
}

// Whatever a joiner is fed, it only returns what some order of pieces adds up to, and gives all memory back.
func TestJoinSimulation(t *testing.T) {
	for seed := range seeds(300) {
		random := rand.New(rand.NewPCG(seed, 5))
		buffers := NewPieceBuffers(2 << 20)
		j := NewJoiner(buffers)
		var s Splitter
		now, number := int64(0), uint64(0)
		var waiting [][]byte
		sent := map[string]bool{}
		sentN, joined := 0, 0
		for range 300 {
			p := packetOf(1+random.IntN(4000), random)
			sent[string(p)] = true
			sentN++
			for _, piece := range cut(t, &s, p, 600+random.IntN(900)) {
				if random.IntN(20) > 0 {
					waiting = append(waiting, piece)
				}
				if random.IntN(20) == 0 {
					waiting = append(waiting, piece)
				}
			}
			for len(waiting) > random.IntN(30) {
				k := random.IntN(min(len(waiting), 6))
				got, result := add(j, waiting[k], number, now)
				if (result == PieceJoined) != (got != nil) {
					t.Fatalf("seed %d: %d bytes with %v", seed, len(got), result)
				}
				if result == PieceJoined {
					joined++
					if !sent[string(got)] {
						t.Fatalf("seed %d: joined %d bytes that were never sent", seed, len(got))
					}
				}
				waiting = append(waiting[:k], waiting[k+1:]...)
				number++
			}
			j.Release()
			now += int64(random.IntN(20)) * millisecond
		}
		if joined < sentN/2 {
			t.Fatalf("seed %d: %d of %d joined: %+v", seed, joined, sentN, j.stats)
		}
		j.Close()
		if buffers.InUseBytes() != 0 || j.bytes != 0 {
			t.Fatalf("seed %d: %d bytes in use", seed, buffers.InUseBytes())
		}
	}
}

// FuzzJoin feeds a joiner pieces: each is a length, then that many bytes.
func FuzzJoin(f *testing.F) {
	f.Add([]byte("\x04\x00\x01\x00a\x04\x00\x01\x81b"))
	f.Add([]byte("\x04\x00\x01\x82c\x05\x00\x01\x00ab\x05\x00\x01\x01cd"))
	f.Add([]byte("\x04\x00\x01\x00a\x04\x00\x01\x00a\x04\x00\x01\x81b"))
	f.Add([]byte("\x05\x00\x01\xffab\x03\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, script []byte) {
		buffers := NewPieceBuffers(1 << 20)
		j := NewJoiner(buffers)
		now := int64(0)
		for number := uint64(0); len(script) > 0; number++ {
			n := min(int(script[0]), len(script)-1)
			payload := script[1 : 1+n]
			script = script[1+n:]
			now += int64(n) * millisecond
			before := j.stats
			packet, result := add(j, payload, number, now)
			switch {
			case result == PieceJoined:
				if len(packet) == 0 || len(packet) > MaxPacketBytes || j.stats.Joined != before.Joined+1 {
					t.Fatalf("joined %d bytes: %+v", len(packet), j.stats)
				}
				if !bytes.Contains(packet, payload[PieceHeaderBytes:]) {
					t.Fatal("the packet lacks its last piece to come")
				}
			case packet != nil:
				t.Fatalf("%v with a packet", result)
			case result == PieceDropped && j.stats.Dropped() == before.Dropped():
				t.Fatal("dropped and not counted")
			}
			if n%3 == 0 {
				j.Release()
			}
			if j.bytes > maxUnfinishedBytes || j.Unfinished() > MaxUnfinished {
				t.Fatalf("%d bytes, %d packets", j.bytes, j.Unfinished())
			}
		}
		j.Close()
		if buffers.InUseBytes() != 0 || j.bytes != 0 {
			t.Fatalf("%d bytes in use at the end", buffers.InUseBytes())
		}
	})
}

func TestJoinAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and empties pools at random")
	}
	var s Splitter
	j := NewJoiner(NewPieceBuffers(roomy))
	pieces := cut(t, &s, make([]byte, 4000), 1420)
	number := uint64(0)
	if n := testing.AllocsPerRun(1000, func() {
		for _, p := range pieces {
			number++
			add(j, p, number, 0)
		}
		j.Release()
		plan, _ := s.Split(4000, 1420)
		for k := range plan.Pieces() {
			plan.PutHeader((*[PieceHeaderBytes]byte)(pieces[k]), k)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkJoin(b *testing.B) {
	for _, size := range []int{1280, 1420, 9000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var s Splitter
			j := NewJoiner(NewPieceBuffers(roomy))
			pieces := cut(b, &s, make([]byte, size), 1220)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for number := uint64(0); b.Loop(); number++ {
				for _, p := range pieces {
					add(j, p, number, 0)
				}
				j.Release()
			}
		})
	}
}

func BenchmarkSplit(b *testing.B) {
	var s Splitter
	var header [PieceHeaderBytes]byte
	b.SetBytes(1280)
	b.ReportAllocs()
	for b.Loop() {
		plan, _ := s.Split(1280, 1220)
		for k := range plan.Pieces() {
			plan.Piece(k)
			plan.PutHeader(&header, k)
		}
	}
}

// add gives a joiner a piece without a congestion mark.
func add(j *Joiner, payload []byte, number uint64, nowNanos int64) ([]byte, PieceResult) {
	packet, _, result := j.Add(Piece{Payload: payload, Number: number}, nowNanos)
	return packet, result
}

// TestJoinCongestion: a mark on any piece is one on the packet, and on no other.
func TestJoinCongestion(t *testing.T) {
	for marked := range 4 {
		j := NewJoiner(NewPieceBuffers(roomy))
		for i, payload := range []string{"\x00\x01\x00ab", "\x00\x01\x82e", "\x00\x01\x01cd", "\x00\x02\x80other"} {
			_, congested, result := j.Add(Piece{Payload: []byte(payload), Number: uint64(i), Congested: i == marked}, 0)
			if want := (i == 3) == (marked == 3); result == PieceJoined && congested != want {
				t.Errorf("piece %d marked: the packet of piece %d is congested: %v", marked, i, congested)
			}
		}
	}
}

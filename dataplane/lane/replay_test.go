package lane

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// setWindow is the window by its definition: a set of numbers and the highest of them.
type setWindow struct {
	seen map[uint64]bool
	next uint64
}

func (w *setWindow) accept(number uint64) Verdict {
	if number < w.next && w.next-1-number >= ReplayWindow {
		return VerdictOld
	}
	if w.seen[number] {
		return VerdictReplayed
	}
	w.seen[number] = true
	w.next = max(w.next, number+1)
	return VerdictOK
}

func TestWindowEdges(t *testing.T) {
	const start = 1<<40 + 17
	tests := []struct {
		name   string
		number uint64
		want   Verdict
	}{
		{"first", start, VerdictOK},
		{"again", start, VerdictReplayed},
		{"oldest in the window", start - ReplayWindow + 1, VerdictOK},
		{"oldest in the window again", start - ReplayWindow + 1, VerdictReplayed},
		{"one older", start - ReplayWindow, VerdictOld},
		{"zero", 0, VerdictOld},
		{"next", start + 1, VerdictOK},
		{"what was oldest", start - ReplayWindow + 1, VerdictOld},
		{"a whole ring ahead", start + 1 + windowWords*wordBits, VerdictOK},
		{"where an old bit was in the ring", start + 2, VerdictOld},
		{"behind it", start + windowWords*wordBits, VerdictOK},
		{"the last number", NumberLimit - 1, VerdictOK},
		{"the last number again", NumberLimit - 1, VerdictReplayed},
		{"before it", NumberLimit - ReplayWindow, VerdictOK},
	}
	var w window
	for _, tt := range tests {
		if got := w.accept(tt.number); got != tt.want {
			t.Fatalf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	var zero window
	if v := zero.accept(0); v != VerdictOK {
		t.Fatalf("number 0 in an empty window: %v", v)
	}
	if v := zero.accept(0); v != VerdictReplayed {
		t.Fatalf("number 0 again: %v", v)
	}
}

func TestWindowAgainstSet(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		var w window
		set := setWindow{seen: map[uint64]bool{}}
		at := random.Uint64N(1 << 40)
		for range 20_000 {
			switch n := random.IntN(1000); {
			case n == 0:
				at += random.Uint64N(40_000)
			case n < 500:
				at++
			}
			number := at - min(at, random.Uint64N(1+random.Uint64N(ReplayWindow+200)))
			if got, want := w.accept(number), set.accept(number); got != want {
				t.Fatalf("seed %d, number %d, next %d: %v, want %v", seed, number, w.next, got, want)
			}
		}
	}
}

// TestWindowJump moves a window in which every number was seen, and looks at every number after that.
func TestWindowJump(t *testing.T) {
	for _, jump := range []uint64{
		1, 63, 64, 65, ReplayWindow - 1, ReplayWindow, ReplayWindow + 1, ReplayWindow + wordBits,
		ReplayWindow + 2*wordBits, ReplayWindow + 3*wordBits, 3*ReplayWindow + 5, 1 << 50,
	} {
		for _, start := range []uint64{20_000, 20_031, 20_032, 20_033} {
			var w window
			set := setWindow{seen: map[uint64]bool{}}
			for n := uint64(5000); n <= start; n++ {
				if v := w.accept(n); v != VerdictOK || set.accept(n) != VerdictOK {
					t.Fatalf("number %d: %v", n, v)
				}
			}
			to := start + jump
			for n := to; n > to-ReplayWindow-100; n-- {
				if got, want := w.accept(n), set.accept(n); got != want {
					t.Fatalf("from %d to %d, number %d: %v, want %v", start, to, n, got, want)
				}
			}
		}
	}
}

func FuzzWindow(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 64, 0, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0x20, 1, 0, 0, 0, 1, 0, 0, 0, 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		var w window
		set := setWindow{seen: map[uint64]bool{}}
		for ; len(data) >= 4; data = data[4:] {
			number := uint64(binary.BigEndian.Uint32(data))
			if number&1 == 1 { // half of them near the edge, which is where mistakes are
				number = max(w.next, 1<<20) - 1<<20 + number%(1<<21)
			}
			if got, want := w.accept(number), set.accept(number); got != want {
				t.Fatalf("number %d: %v, want %v", number, got, want)
			}
		}
	})
}

// decodeRFC9000 is the algorithm of RFC 9000 appendix A.3, step by step, for 4-byte numbers.
func decodeRFC9000(largest int64, truncated uint32) uint64 {
	expected := largest + 1
	const win, hwin, mask = int64(1) << 32, int64(1) << 31, int64(1)<<32 - 1
	candidate := expected&^mask | int64(truncated)
	if candidate <= expected-hwin && candidate < 1<<62-win {
		return uint64(candidate + win)
	}
	if candidate > expected+hwin && candidate >= win {
		return uint64(candidate - win)
	}
	return uint64(candidate)
}

func TestReconstruct(t *testing.T) {
	if got := reconstruct(0xa82f30ea+1, 0xa82f9b32); got != 0xa82f9b32 {
		t.Errorf("the example of appendix A.3, with a longer number: %#x", got)
	}
	edges := []uint64{
		0, 1, 2, 1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 1, 1 << 32, 1<<32 + 1, 3 << 31, 1 << 40,
		1<<61 + 5, NumberLimit - 1<<32, NumberLimit - 1<<31 - 1, NumberLimit - 1<<31, NumberLimit - 2, NumberLimit - 1,
	}
	if got := reconstruct(NumberLimit, 0); got != NumberLimit-1<<32 {
		t.Errorf("after the last number: %#x", got) // the algorithm of the RFC ends here; ours names no number that is none
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		edges = append(edges, random.Uint64N(NumberLimit))
	}
	for _, expected := range edges {
		lows := []uint32{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 1}
		for d := range uint32(5) {
			lows = append(lows, uint32(expected)+d-2, uint32(expected)+1<<31+d-2)
		}
		for _, low := range append(lows, random.Uint32()) {
			if got, want := reconstruct(expected, low), decodeRFC9000(int64(expected)-1, low); got != want {
				t.Fatalf("expected %#x, low %#x: %#x, want %#x", expected, low, got, want)
			}
		}
	}
}

func BenchmarkWindow(b *testing.B) {
	var w window
	var number uint64
	for b.Loop() {
		if w.accept(number) != VerdictOK {
			b.Fatal("refused")
		}
		number++
	}
}

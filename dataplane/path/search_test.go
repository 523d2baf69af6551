package path

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

var ipv4 = SearchConfig{BaseBytes: 1200, FloorBytes: 548, CeilingBytes: 1472}

func TestFirstSearch(t *testing.T) {
	jumbo := SearchConfig{BaseBytes: 1200, FloorBytes: 548, CeilingBytes: 8972}
	ipv6 := SearchConfig{BaseBytes: 1232, FloorBytes: 1232, CeilingBytes: 1452}
	for _, c := range []struct {
		name    string
		cfg     SearchConfig
		mtu     int // UDP payload
		mostRTT int64
	}{
		{"ethernet", ipv4, 1472, 2},
		{"ethernet, ipv6", ipv6, 1452, 2},
		{"underlay 1400", ipv4, 1372, 12},
		{"underlay 1400, ipv6", ipv6, 1352, 12},
		{"underlay 1280", ipv4, 1252, 12},
		{"underlay 1280, ipv6", ipv6, 1232, 12},
		{"underlay 1124", ipv4, 1096, 12},
		{"underlay 576", ipv4, 548, 12},
		{"odd", ipv4, 1407, 12},
		{"below the base, odd", ipv4, 777, 12},
		{"jumbo", jumbo, 8972, 2},
		{"jumbo, odd", jumbo, 4321, 14},
		{"jumbo card, common path", jumbo, 1472, 14},
		{"all the same", SearchConfig{BaseBytes: 1300, FloorBytes: 1300, CeilingBytes: 1300}, 1300, 0},
		{"base out of range", SearchConfig{BaseBytes: 9999, FloorBytes: 548, CeilingBytes: 1000}, 972, 12},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &link{mtu: c.mtu, rttNanos: 100 * millisecond}
			r := newRun(t, c.cfg, l, 1)
			took := r.until(30*second, r.s.Done)
			if r.s.Size() != c.mtu {
				t.Errorf("size %d, want %d", r.s.Size(), c.mtu)
			}
			// The first wait is for a path whose round trip time is not known.
			if most := c.mostRTT*(l.rttNanos*3/2+tickNanos) + 2*unknownRTTNanos; took > most && c.mostRTT > 0 {
				t.Errorf("took %d ms, at most %d", took/millisecond, most/millisecond)
			}
			if l.probes > 100 {
				t.Errorf("%d probes", l.probes)
			}
			t.Logf("%d ms, %d probes, %d bytes", took/millisecond, l.probes, l.bytes)
		})
	}
}

// Whatever the path, the search ends with its size.
func TestSearchRandomPaths(t *testing.T) {
	for seed := range seeds(3000) {
		random := rand.New(rand.NewPCG(seed, 2))
		cfg := ipv4
		if seed%3 == 0 {
			cfg.CeilingBytes = 8972
		}
		l := &link{
			mtu:      cfg.FloorBytes + random.IntN(cfg.CeilingBytes-cfg.FloorBytes+1),
			rttNanos: int64(random.IntN(800)+1) * millisecond,
		}
		if seed%2 == 0 {
			l.loss = 0.05 * random.Float64()
		}
		if seed%5 == 0 {
			l.device = l.mtu + random.IntN(200)
		}
		r := newRun(t, cfg, l, seed)
		r.until(120*second, r.s.Done)
		if got := r.s.Size(); got > l.mtu || l.loss == 0 && got != l.mtu || got < l.mtu/3 {
			t.Fatalf("seed %d: size %d, path %d, loss %.3f", seed, got, l.mtu, l.loss)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, device := range []int{1471, 1452, 1400, 1250, 1100, 600, 548} {
		t.Run(fmt.Sprint(device), func(t *testing.T) {
			r := newRun(t, ipv4, &link{mtu: 1472, rttNanos: 20 * millisecond}, 1)
			r.until(second, r.s.Done)
			r.traffic = 1472
			r.l.device, r.l.mtu = device, device
			for range len(commonBytes) + 1 {
				r.send()
			}
			if r.s.Size() > device {
				t.Fatalf("size %d with an interface of %d", r.s.Size(), device)
			}
			if r.s.Done() && r.s.Size() < device {
				t.Error("done without a search")
			}
			r.until(3*second, r.s.Done)
			if r.s.Size() != device {
				t.Errorf("size %d, want %d", r.s.Size(), device)
			}
			r.l.device, r.l.mtu = 1472, 1472
			r.forNanos(raiseNanos + 5*second)
			if r.s.Size() != 1472 {
				t.Errorf("size %d after the raise timer", r.s.Size())
			}
		})
	}
}

func TestRefusedOutOfRange(t *testing.T) {
	r := newRun(t, ipv4, &link{mtu: 1472, rttNanos: 20 * millisecond}, 1)
	r.until(second, r.s.Done)
	for _, bytes := range []int{-1, 0, 100, 548, 1473, 65536} {
		r.s.Refused(bytes, r.now)
	}
	if r.s.Size() != 1472 || !r.s.Done() {
		t.Errorf("size %d, done %v", r.s.Size(), r.s.Done())
	}
}

// A search that found less than the ceiling is repeated upwards, and costs little.
func TestRaiseTimer(t *testing.T) {
	r := newRun(t, ipv4, &link{mtu: 1372, rttNanos: 20 * millisecond}, 1)
	r.until(3*second, r.s.Done)
	for i, wait := range []int64{earlyRaiseNanos, secondRaiseNanos, raiseNanos, raiseNanos} {
		if got := r.s.NextNanos() - r.now; got > wait || got < wait-4*second {
			t.Errorf("raise %d after %d s, want %d", i, got/second, wait/second)
		}
		probes := r.l.probes
		r.forNanos(wait + second)
		if r.s.Size() != 1372 || !r.s.Done() {
			t.Fatalf("size %d, done %v after raise %d", r.s.Size(), r.s.Done(), i)
		}
		if got := r.l.probes - probes; got == 0 || got > 40 {
			t.Errorf("%d probes in raise %d", got, i)
		}
	}
}

func TestAnsweredUnknown(t *testing.T) {
	s := NewSearch(ipv4, 0)
	if s.Answered(lane.PathData{}, 1) || s.Answered(lane.PathData{1}, 1) {
		t.Error("took what answers nothing")
	}
	data := lane.PathData{7}
	if _, ok := s.Probe(data, 0); !ok {
		t.Fatal("nothing due")
	}
	if !s.Answered(data, 5) || s.Answered(data, 6) {
		t.Error("one answer, twice")
	}
	s.Restart(ipv4, 10)
	if _, ok := s.Probe(data, 10); !ok {
		t.Fatal("nothing due after a restart")
	}
	s.Restart(ipv4, 20)
	if s.Answered(data, 21) {
		t.Error("took an answer from before the restart")
	}
}

// Changes of the path at any time, with losses: after three seconds of traffic packets pass again, if they can.
func TestSearchSimulation(t *testing.T) {
	for seed := range seeds(400) {
		random := rand.New(rand.NewPCG(seed, 3))
		l := &link{mtu: 548 + random.IntN(925), rttNanos: int64(random.IntN(200)+1) * millisecond}
		r := newRun(t, ipv4, l, seed)
		r.reported = seed%2 == 0
		r.traffic = 1472
		r.until(20*second, r.s.Done)
		for range 8 {
			l.mtu = 548 + random.IntN(925)
			l.dead = random.IntN(4) == 0
			r.forNanos(int64(random.IntN(5000)) * millisecond)
			l.dead = false
			r.forNanos(maxSilenceNanos + 3*second)
			if r.s.Size() > l.mtu {
				t.Fatalf("seed %d: size %d, path %d", seed, r.s.Size(), l.mtu)
			}
		}
	}
}

func BenchmarkSearchSent(b *testing.B) {
	s := NewSearch(ipv4, 0)
	b.ReportAllocs()
	for now := int64(0); b.Loop(); now++ {
		s.Sent(1472, now)
	}
}

func TestSearchAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newRun(t, ipv4, &link{mtu: 1407, rttNanos: 20 * millisecond}, 1)
	now, serial := int64(0), uint64(0)
	var data lane.PathData
	if n := testing.AllocsPerRun(100, func() {
		now += 50 * millisecond
		for {
			serial++
			binary.BigEndian.PutUint64(data[:], serial)
			bytes, ok := r.s.Probe(data, now)
			if !ok {
				break
			}
			if bytes <= 1407 {
				r.s.Answered(data, now+millisecond)
			}
		}
		r.s.Sent(1407, now)
		r.s.Reported(1, 1, now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// first returns a search whose first burst is under way, and the data of its probes by size.
func first(t *testing.T) (*Search, map[int]lane.PathData) {
	t.Helper()
	s := NewSearch(ipv4, 0)
	probes := map[int]lane.PathData{}
	for s.Due(0) {
		data := nextData()
		bytes, ok := s.Probe(data, 0)
		if !ok {
			t.Fatal("due, and no probe")
		}
		probes[bytes] = data
	}
	for _, bytes := range []int{1472, 1452, 1432, 1372, 1252, 1200, 548} {
		if _, ok := probes[bytes]; !ok {
			t.Fatalf("no probe of %d bytes at first: %v", bytes, probes)
		}
	}
	return s, probes
}

// What has passed is used at once, before the search has ended.
func TestAnsweredRaisesAtOnce(t *testing.T) {
	s, probes := first(t)
	s.Answered(probes[1372], millisecond)
	if s.Size() != 1372 || s.Done() {
		t.Errorf("size %d, done %v", s.Size(), s.Done())
	}
	s.Answered(probes[1200], 2*millisecond) // overtaken
	if s.Size() != 1372 {
		t.Errorf("size %d", s.Size())
	}
	s.Answered(probes[1472], 3*millisecond)
	if s.Size() != 1472 || !s.Done() || s.NextNanos() != Never {
		t.Errorf("size %d, done %v", s.Size(), s.Done())
	}
}

func TestLateAnswers(t *testing.T) {
	s, probes := first(t)
	if !s.Answered(probes[1452], probeMemoryNanos) || s.Size() != 1200 {
		t.Errorf("size %d after an answer that came too late", s.Size())
	}
	s, probes = first(t)
	s.Answered(probes[1472], millisecond)
	s.Reported(1, 1, 2*millisecond)
	if s.Answered(probes[1452], 3*millisecond) {
		t.Error("took an answer from before the path was doubted")
	}
}

func TestRefusedLowersToACommonSize(t *testing.T) {
	s, probes := first(t)
	s.Answered(probes[1472], millisecond)
	s.Refused(1472, 2*millisecond)
	if s.Size() != 1452 || s.Done() {
		t.Errorf("size %d, done %v", s.Size(), s.Done())
	}
}

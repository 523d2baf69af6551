package path

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// link is a simulated path: what is longer than mtu vanishes, the rest arrives after a while or, rarely, not.
type link struct {
	mtu      int
	device   int // longer packets are refused by the interface
	rttNanos int64
	loss     float64 // each way
	dead     bool
	random   *rand.Rand

	answers []answer
	probes  int
	bytes   int
}

type answer struct {
	data  lane.PathData
	nanos int64
}

func (l *link) arrives(bytes int) bool {
	return !l.dead && bytes <= l.mtu && l.random.Float64() >= l.loss
}

// run drives a search as the engine does, every tick, until the time is over or until says so.
type run struct {
	t      *testing.T
	s      *Search
	l      *link
	now    int64
	serial uint64
	// traffic is the length of packets sent in every tick, 0 for none; reported whether reports tell of them.
	traffic, packets int
	reported         bool
	reports          []interval
	lost             int // packets of traffic
}

type interval struct{ nanos, full, lost int64 }

// seeds returns how many schedules a simulation runs: fewer where the race detector makes each much slower.
func seeds(n uint64) uint64 {
	if raceEnabled {
		return n / 20
	}
	return n
}

const tickNanos = 20 * millisecond

func newRun(t *testing.T, cfg SearchConfig, l *link, seed uint64) *run {
	t.Helper()
	l.random = rand.New(rand.NewPCG(seed, 1))
	if l.device == 0 {
		l.device = 1 << 20
	}
	r := &run{t: t, l: l, now: int64(seed%7) * second, packets: 10}
	r.s = NewSearch(cfg, r.now)
	return r
}

func (r *run) step() {
	kept := r.l.answers[:0]
	for _, a := range r.l.answers {
		if a.nanos > r.now {
			kept = append(kept, a)
			continue
		}
		if r.l.random.Float64() >= r.l.loss && !r.l.dead {
			r.s.Answered(a.data, r.now)
		}
	}
	r.l.answers = kept
	for len(r.reports) > 0 && r.reports[0].nanos <= r.now {
		r.s.Reported(r.reports[0].full, r.reports[0].lost, r.now)
		r.reports = r.reports[1:]
	}
	for n, sent := 0, 0; r.s.Due(r.now); n++ {
		// Where the interface refuses all of a burst, the next one follows at once.
		if sent > maxBurst+6 || n > 6*maxBurst {
			r.t.Fatalf("%d probes at once, %d of them sent", n, sent)
		}
		var data lane.PathData
		r.serial++
		binary.BigEndian.PutUint64(data[:], r.serial)
		bytes, ok := r.s.Probe(data, r.now)
		if !ok {
			break
		}
		r.l.probes++
		r.l.bytes += bytes
		if bytes > r.l.device {
			r.s.Refused(bytes, r.now)
			continue
		}
		sent++
		if r.l.arrives(bytes) {
			r.l.answers = append(r.l.answers, answer{data, r.now + r.l.rttNanos})
		}
	}
	r.send()
	r.invariants()
	r.now += tickNanos
}

// send sends the traffic of one tick, split where it is too long.
func (r *run) send() {
	if r.traffic == 0 {
		return
	}
	bytes := min(r.traffic, r.s.Size())
	if bytes > r.l.device {
		r.s.Refused(bytes, r.now)
		return
	}
	i := interval{nanos: r.now + r.l.rttNanos}
	for range r.packets {
		if bytes >= r.s.FullBytes() {
			i.full++
		}
		if !r.l.arrives(bytes) {
			i.lost++
			r.lost++
		}
	}
	r.s.Sent(bytes, r.now)
	if r.reported && i.lost < int64(r.packets) { // nothing arrives, nothing is reported
		r.reports = append(r.reports, i)
	}
}

func (r *run) invariants() {
	if size := r.s.Size(); size < r.s.cfg.FloorBytes || size > r.s.cfg.CeilingBytes {
		r.t.Fatalf("size %d", size)
	}
	if next := r.s.NextNanos(); next <= r.now && !r.s.Due(r.now) {
		r.t.Fatalf("next %d, now %d, nothing due", next, r.now)
	}
}

func (r *run) until(limitNanos int64, done func() bool) (tookNanos int64) {
	r.t.Helper()
	from := r.now
	for !done() {
		if r.now-from > limitNanos {
			r.t.Fatalf("after %d ms: size %d, done %v, phase %d, missed %v, low %d, top %d",
				(r.now-from)/millisecond, r.s.Size(), r.s.Done(), r.s.phase, r.s.missed, r.s.low, r.s.top)
		}
		r.step()
	}
	return r.now - from
}

func (r *run) forNanos(nanos int64) {
	for to := r.now + nanos; r.now < to; {
		r.step()
	}
}

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

func TestBlackHole(t *testing.T) {
	for _, c := range []struct {
		name               string
		before, after      int
		traffic            int
		reported           bool
		rttNanos, mixBytes int64
	}{
		{"full packets, no reports", 1472, 1372, 1472, false, 20 * millisecond, 0},
		{"full packets, reports", 1472, 1372, 1472, true, 20 * millisecond, 0},
		{"long path", 1472, 1372, 1472, true, 400 * millisecond, 0},
		{"shorter packets", 1472, 1252, 1400, true, 20 * millisecond, 0},
		{"below the base", 1452, 548, 1452, false, 50 * millisecond, 0},
		{"below the base, shorter packets", 1472, 600, 700, false, 50 * millisecond, 0},
		{"fast path", 1472, 1407, 1472, true, 1 * millisecond, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &link{mtu: c.before, rttNanos: c.rttNanos}
			r := newRun(t, ipv4, l, 1)
			r.until(10*second, r.s.Done)
			r.traffic, r.reported = c.traffic, c.reported
			r.forNanos(3 * second)
			if r.s.Size() != c.before || !r.s.Done() || r.lost > 0 {
				t.Fatalf("size %d, done %v, lost %d before the black hole", r.s.Size(), r.s.Done(), r.lost)
			}
			l.mtu = c.after
			took := r.until(3*second, func() bool { return r.s.Size() <= c.after })
			if r.s.Done() && r.s.Size() != c.after {
				t.Error("done before the search has ended")
			}
			full := r.until(10*second, r.s.Done)
			if r.s.Size() != c.after {
				t.Errorf("size %d, want %d", r.s.Size(), c.after)
			}
			t.Logf("packets pass after %d ms, searched after %d ms", took/millisecond, (took+full)/millisecond)
			l.mtu = c.before
			r.forNanos(raiseNanos + 10*second)
			if r.s.Size() != c.before {
				t.Errorf("size %d after the raise timer, want %d", r.s.Size(), c.before)
			}
		})
	}
}

// Reports that say that full packets arrive make probes needless.
func TestReportsConfirm(t *testing.T) {
	r := newRun(t, ipv4, &link{mtu: 1472, rttNanos: 20 * millisecond}, 1)
	r.until(second, r.s.Done)
	probes := r.l.probes
	r.traffic, r.reported = 1472, true
	r.forNanos(60 * second)
	if r.l.probes != probes {
		t.Errorf("%d probes beside reports", r.l.probes-probes)
	}
	r.traffic = 1300 // long, but not full
	r.forNanos(60 * second)
	if got := r.l.probes - probes; got < 90 || got > 130 {
		t.Errorf("%d probes in a minute, two a second expected", got)
	}
	probes = r.l.probes
	r.traffic = 548
	r.forNanos(60 * second)
	if got := r.l.probes - probes; got > 2 {
		t.Errorf("%d probes for short packets", got)
	}
}

// A path that carries nothing for a while must not become one for short packets.
func TestOutageIsNoBlackHole(t *testing.T) {
	for _, outage := range []int64{200 * millisecond, 2 * second, 30 * second, 700 * second} {
		r := newRun(t, ipv4, &link{mtu: 1472, rttNanos: 30 * millisecond}, 1)
		r.until(second, r.s.Done)
		r.traffic, r.reported = 1472, true
		r.forNanos(2 * second)
		r.l.dead = true
		probes := r.l.probes
		r.forNanos(outage)
		if got := int64(r.l.probes - probes); got > 10+2*outage/second {
			t.Errorf("%d probes during %d s of outage", got, outage/second)
		}
		r.l.dead = false
		for range 6 * second / tickNanos {
			r.step()
			if r.s.Size() != 1472 || !r.s.Done() {
				t.Fatalf("outage of %d s: size %d, done %v", outage/second, r.s.Size(), r.s.Done())
			}
		}
	}
}

func TestFirstSearchWaitsOutAnOutage(t *testing.T) {
	r := newRun(t, ipv4, &link{mtu: 1372, rttNanos: 30 * millisecond, dead: true}, 1)
	r.forNanos(60 * second)
	if r.s.Done() || r.s.Size() != 1200 {
		t.Errorf("done %v, size %d with nothing answered", r.s.Done(), r.s.Size())
	}
	if r.l.probes > 60 {
		t.Errorf("%d probes into nothing", r.l.probes)
	}
	r.l.dead = false
	r.until(8*second, r.s.Done)
	if r.s.Size() != 1372 {
		t.Errorf("size %d", r.s.Size())
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

// Loss that is no black hole hardly ever looks like one, and is found out at once.
func TestLossIsNoBlackHole(t *testing.T) {
	for _, reported := range []bool{true, false} {
		below, ticks := 0, 0
		for seed := range uint64(20) {
			r := newRun(t, ipv4, &link{mtu: 1472, rttNanos: 40 * millisecond, loss: 0.05}, seed)
			r.until(30*second, r.s.Done)
			for r.s.Size() < 1472 { // lost its first probes
				r.step()
			}
			r.traffic, r.reported = 1472, reported
			for to := r.now + 120*second; r.now < to; ticks++ {
				r.step()
				if r.s.Size() < 1472 {
					below++
				}
			}
		}
		if limit := ticks / 50; below > limit || reported && below > 0 {
			t.Errorf("reported %v: too short for %d of %d ticks", reported, below, ticks)
		}
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

// When a probe must find out whether long packets arrive.
func TestWatch(t *testing.T) {
	fullWait := int64(minConfirmNanos)
	for _, c := range []struct {
		name string
		do   func(s *Search)
		want int64
	}{
		{"nothing sent", func(*Search) {}, Never},
		{"short packets", func(s *Search) { s.Sent(548, second) }, Never},
		{"long ones", func(s *Search) { s.Sent(549, second); s.Sent(549, second+5) }, second + confirmNanos},
		{"full ones", func(s *Search) { s.Sent(1472, second); s.Sent(1472, second+5) }, second + fullWait},
		{"long, then full", func(s *Search) { s.Sent(549, second); s.Sent(1472, second+5) }, second + 5 + fullWait},
		{
			"full after a while",
			func(s *Search) { s.Sent(549, second); s.Sent(1472, second+900*millisecond) },
			second + confirmNanos,
		},
		{"some arrived", func(s *Search) { s.Sent(1472, second); s.Reported(2, 1, second+5) }, Never},
		{"all lost", func(s *Search) { s.Sent(1472, second); s.Reported(2, 2, second+5) }, second + 5},
		{"more lost", func(s *Search) { s.Sent(1472, second); s.Reported(2, 9, second+5) }, second + 5},
		{"no full ones", func(s *Search) { s.Sent(1472, second); s.Reported(0, 0, second+5) }, second + fullWait},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, probes := first(t)
			s.Answered(probes[1472], millisecond)
			c.do(s)
			if got := s.NextNanos(); got != c.want {
				t.Errorf("next after %d ms, want %d", got/millisecond, c.want/millisecond)
			}
		})
	}
}

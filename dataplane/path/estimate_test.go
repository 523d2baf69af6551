package path

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// flow is a simulated lane in one direction with reports in the other.
type flow struct {
	e      *Estimate
	r      Reporter
	random *rand.Rand

	delayNanos, backNanos int64
	queueNanos            func(now int64) int64 // on the way there
	loss, ce              float64
	ppm                   int64 // how much too fast the other end's clock is

	now, firstNanos int64
	next            uint64
	report          lane.Report
	highestNanos    int64 // arrival of the highest, on the clock of here
	arrivals        []arrival
	reports         []reportUnderWay
	lastInterval    Interval
	sent, received  int64
}

type arrival struct {
	number uint64
	nanos  int64
}

type reportUnderWay struct {
	report lane.Report
	nanos  int64
}

func newFlow(seed uint64) *flow {
	return &flow{
		e: NewEstimate(), random: rand.New(rand.NewPCG(seed, 1)), queueNanos: func(int64) int64 { return 0 },
		delayNanos: 10 * millisecond, backNanos: 15 * millisecond, now: second, highestNanos: -1,
	}
}

// run sends a batch of packets every stepNanos.
func (f *flow) run(nanos, stepNanos int64, packets, bytes int) {
	for to := f.now + nanos; f.now < to; f.now += stepNanos {
		f.deliver()
		if packets == 0 {
			continue
		}
		f.e.Sent(f.next, packets, packets*bytes, packets, f.now)
		for range packets {
			if f.random.Float64() >= f.loss {
				f.arrivals = append(f.arrivals, arrival{f.next, f.now + f.delayNanos + f.queueNanos(f.now)})
			}
			f.next++
			f.sent++
		}
	}
}

func (f *flow) deliver() {
	kept := f.arrivals[:0]
	for _, a := range f.arrivals {
		if a.nanos > f.now {
			kept = append(kept, a)
			continue
		}
		if f.report.Received == 0 {
			f.firstNanos = a.nanos
		}
		f.report.Received++
		f.received++
		f.r.Arrived(1)
		if a.number < f.report.Highest {
			f.report.Reordered++
		} else {
			f.report.Highest, f.highestNanos = a.number, a.nanos
		}
		if f.random.Float64() < f.ce {
			f.report.CE++
		} else {
			f.report.ECT0++
		}
	}
	f.arrivals = kept
	if f.r.Due(f.now) {
		r := f.report
		r.DelayMicros = uint64((f.now - f.highestNanos) / microsecond)
		elapsed := f.highestNanos - f.firstNanos
		r.ArrivalMicros = uint64((elapsed + elapsed/1_000_000*f.ppm) / microsecond)
		f.reports = append(f.reports, reportUnderWay{r, f.now + f.backNanos})
		f.r.Sent(f.now)
	}
	for len(f.reports) > 0 && f.reports[0].nanos <= f.now {
		f.lastInterval, _ = f.e.Reported(&f.reports[0].report, f.now)
		f.reports = f.reports[1:]
	}
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance {
		t.Errorf("%s is %g, want %g ± %g", what, got, want, tolerance)
	}
}

func TestEstimate(t *testing.T) {
	for _, c := range []struct {
		name     string
		loss, ce float64
		step     int64
		packets  int
		seconds  int64
	}{
		{"loaded", 0, 0, millisecond, 20, 5},
		{"fast", 0, 0, 100 * microsecond, 40, 2},
		{"sparse", 0, 0, 100 * millisecond, 1, 20},
		{"lossy", 0.03, 0, millisecond, 20, 5},
		{"congested", 0, 0.2, millisecond, 20, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFlow(1)
			f.loss, f.ce = c.loss, c.ce
			f.run(c.seconds*second, c.step, c.packets, 1452)
			r := f.e.Reading(f.now)
			rtt, step := float64(f.delayNanos+f.backNanos), float64(c.step)
			near(t, "RTT", float64(r.RTTNanos), rtt, rtt/32+step)
			near(t, "least RTT", float64(r.MinRTTNanos), rtt, rtt/32+step)
			near(t, "latest RTT", float64(r.LatestRTTNanos), rtt, rtt/32+step)
			near(t, "loss", r.LossRatio, c.loss, 0.004)
			near(t, "CE", r.CERatio, c.ce, 0.02)
			near(t, "variation", float64(r.DelayVariationNanos), 0, rtt/32)
			rate := float64(c.packets) * 1452 * (1 - c.loss) * second / float64(c.step)
			near(t, "rate", r.DeliveredBytesPerSecond, rate, rate/5)
			// Idle time makes what was recent old.
			f.run(RecentNanos+second, 10*millisecond, 0, 0)
			if r := f.e.Reading(f.now); r.LossRatio != 0 || r.CERatio != 0 || r.DeliveredBytesPerSecond != 0 {
				t.Errorf("after idle time: %+v", r)
			}
		})
	}
}

// A queue on the way shows in the variation, and goes away again; clocks that drift do not matter.
func TestDelayVariation(t *testing.T) {
	for _, ppm := range []int64{0, 100, -100} {
		f := newFlow(1)
		f.ppm = ppm
		from := f.now
		f.queueNanos = func(now int64) int64 {
			if at := now - from; at > 20*second && at < 23*second {
				return 30 * millisecond
			}
			return 0
		}
		tolerance := float64(1200 * microsecond)
		for at := range 40 {
			f.run(second, millisecond, 4, 1000)
			want := 0.0
			switch {
			case at == 21 || at == 22:
				want = float64(30 * millisecond)
			case at == 20 || at == 23:
				continue
			}
			near(t, "variation", float64(f.e.Reading(f.now).DelayVariationNanos), want, tolerance)
		}
	}
}

// At any rate what is remembered lasts as long as a round trip, also if that is suddenly longer.
func TestLongRoundTrips(t *testing.T) {
	f := newFlow(1)
	for _, rtt := range []int64{200 * millisecond, millisecond, 400 * millisecond} {
		f.delayNanos, f.backNanos = rtt/2, rtt/2
		f.run(3*second, 100*microsecond, 1, 1000)
		near(t, "RTT", float64(f.e.Reading(f.now).RTTNanos), float64(rtt), float64(rtt/16+100*microsecond))
	}
}

func TestMinRTTForgets(t *testing.T) {
	f := newFlow(1)
	f.run(second, millisecond, 4, 1000)
	f.delayNanos = 110 * millisecond
	f.run(second, millisecond, 4, 1000)
	if got := f.e.Reading(f.now).MinRTTNanos; got > 27*millisecond {
		t.Errorf("forgot the least RTT after a second: %d ms", got/millisecond)
	}
	f.run(minRTTSpanNanos, millisecond, 4, 1000)
	near(t, "least RTT", float64(f.e.Reading(f.now).MinRTTNanos), float64(125*millisecond), float64(5*millisecond))
}

// Numbers that no packet had, as after a hand-over, are not lost.
func TestSkippedNumbers(t *testing.T) {
	f := newFlow(1)
	f.run(second, millisecond, 4, 1000)
	f.next += 1 << 20
	f.run(second, millisecond, 4, 1000)
	if r := f.e.Reading(f.now); r.LossRatio > 0 || r.RTTNanos == 0 {
		t.Errorf("%+v", r)
	}
	// A process that takes a lane over, and an estimate made for another path, begin in the middle.
	f.e = NewEstimate()
	f.run(500*millisecond, millisecond, 4, 1000)
	if r := f.e.Reading(f.now); r.LossRatio > 0 || r.Reports == 0 {
		t.Errorf("%+v", r)
	}
	f.run(2*second, millisecond, 4, 1000)
	r := f.e.Reading(f.now)
	if r.LossRatio > 0.001 {
		t.Errorf("%+v", r)
	}
	near(t, "RTT", float64(r.RTTNanos), float64(25*millisecond), float64(2*millisecond))
}

func TestReportRefused(t *testing.T) {
	e := NewEstimate()
	ok := func(want bool, highest, received uint64) {
		t.Helper()
		r := lane.Report{Highest: highest, Received: received}
		if _, got := e.Reported(&r, second); got != want {
			t.Errorf("highest %d, received %d: %v", highest, received, got)
		}
	}
	ok(false, 0, 1) // nothing was sent
	e.Sent(0, 10, 10_000, 0, 0)
	ok(false, 10, 1) // not sent yet
	ok(true, 5, 6)
	ok(false, 5, 6) // nothing new
	ok(false, 4, 5) // overtaken
	ok(true, 5, 6+1)
	ok(true, 9, 9)
	ok(false, 1<<61, 10)
	if got := e.Reading(second).Reports; got != 3 {
		t.Errorf("%d reports", got)
	}
}

// The peer cannot make round trip times negative, or divide by nothing.
func TestReportedNonsense(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 9))
	e := NewEstimate()
	number := uint64(0)
	for now := int64(0); now < 10*second; now += millisecond {
		e.Sent(number, 3, random.IntN(5000), random.IntN(4), now)
		number += 3 + uint64(random.IntN(10))
		r := lane.Report{
			Highest: number - random.Uint64N(number+1), Received: 1 + random.Uint64N(number), CE: random.Uint64N(number),
			DelayMicros: random.Uint64N(lane.MaxReportDelayMicros), ArrivalMicros: random.Uint64N(1 << 62),
		}
		e.Reported(&r, now)
		got := e.Reading(now)
		if got.RTTNanos < 0 || got.MinRTTNanos < 0 || got.LossRatio < 0 || got.LossRatio > 1 || got.CERatio < 0 ||
			got.CERatio > 1 || got.DeliveredBytesPerSecond < 0 || math.IsNaN(got.DeliveredBytesPerSecond) {
			t.Fatalf("%+v after %+v", got, r)
		}
	}
}

// Where fewer packets were lost than were full, the estimate never says more full ones than there were.
func TestFullPackets(t *testing.T) {
	for seed := range seeds(200) {
		random := rand.New(rand.NewPCG(seed, 4))
		e := NewEstimate()
		full := []int64{0} // of the first n packets
		received, highest := uint64(0), uint64(0)
		now, reported := int64(0), 0
		for range 2000 {
			first, packets := len(full)-1, 1+random.IntN(10)
			in := random.IntN(packets + 1)
			// Which of the batch are full the estimate does not know: any order must do.
			order := random.Perm(packets)
			for _, k := range order {
				one := int64(0)
				if k < in {
					one = 1
				}
				full = append(full, full[len(full)-1]+one)
			}
			e.Sent(uint64(first), packets, packets*1000, in, now)
			now += int64(random.IntN(300)) * microsecond
			if random.IntN(3) > 0 {
				continue
			}
			before := int(highest)
			highest = max(highest, uint64(random.IntN(len(full)-1)))
			received = min(received+uint64(random.IntN(10)), highest+1)
			i, ok := e.Reported(&lane.Report{Highest: highest, Received: max(received, 1)}, now)
			if !ok {
				highest = uint64(before)
				continue
			}
			if reported == 0 {
				before = -1
			}
			reported++
			if most := full[highest+1] - full[before+1]; i.Full > most || i.Full < 0 {
				t.Fatalf("seed %d: %d full packets, %d were sent", seed, i.Full, most)
			}
		}
	}
}

// A report on packets sent longer ago than is remembered still counts, but shows no time.
func TestForgottenPackets(t *testing.T) {
	e := NewEstimate()
	now := int64(0)
	for n := range uint64(1000) {
		now += 10 * millisecond
		e.Sent(n, 1, 1000, 1, now)
	}
	i, ok := e.Reported(&lane.Report{Highest: 9, Received: 8}, now)
	if want := (Interval{Sent: 10, Received: 8}); !ok || i != want {
		t.Errorf("%+v %v, want %+v", i, ok, want)
	}
	i, ok = e.Reported(&lane.Report{Highest: 999, Received: 998}, now+millisecond)
	if !ok || i.Sent != 990 || i.Received != 990 || i.RTTNanos != millisecond {
		t.Errorf("%+v %v", i, ok)
	}
	if i.Full < 200 || i.Full > 990 {
		t.Errorf("%d full packets of 990", i.Full)
	}
}

func TestEstimateAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	f := newFlow(1)
	f.run(second, millisecond, 4, 1000)
	number, r := f.next, f.report
	if n := testing.AllocsPerRun(1000, func() {
		f.now += millisecond
		f.e.Sent(number, 4, 4000, 4, f.now)
		number += 4
		r.Highest, r.Received = number-1, r.Received+4
		f.e.Reported(&r, f.now)
		f.e.Reading(f.now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEstimateSent(b *testing.B) {
	e := NewEstimate()
	b.ReportAllocs()
	for n := int64(0); b.Loop(); n++ {
		e.Sent(uint64(n)*45, 45, 45*1452, 45, n*100*microsecond)
	}
}

func BenchmarkEstimateReported(b *testing.B) {
	e := NewEstimate()
	b.ReportAllocs()
	for n := int64(0); b.Loop(); n++ {
		now := n * 20 * millisecond
		e.Sent(uint64(n)*45, 45, 45*1452, 45, now)
		r := lane.Report{Highest: uint64(n)*45 + 44, Received: uint64(n)*45 + 45, ArrivalMicros: uint64(now / microsecond)}
		e.Reported(&r, now+millisecond)
	}
}

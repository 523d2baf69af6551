package path

import (
	"encoding/binary"
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

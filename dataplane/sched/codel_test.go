package sched

import (
	"math"
	"math/rand/v2"
	"testing"
)

const (
	ms  = int64(1_000_000)
	mtu = DefaultQuantumBytes
)

func newPool[T any](tb testing.TB, c Config[T]) *Pool[T] {
	tb.Helper()
	p, err := NewPool(c)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// reference is the pseudocode of RFC 8289 section 5.5 with seconds as floating-point numbers, as printed
// there, plus marks, which RFC 8290 section 4.2 leaves open and Linux does like this: a marked packet is
// sent, and the next drop is put off as after a drop.
type reference struct {
	target, interval float64
	maxPacket        int
	queue            []referencePacket
	bytes            int

	firstAbove, dropNext float64
	count, lastCount     uint32
	dropping             bool

	dropped []int
	marked  []int
}

type referencePacket struct {
	id, bytes int
	stamp     float64
	ect       bool
}

func (r *reference) push(p referencePacket) {
	r.queue = append(r.queue, p)
	r.bytes += p.bytes
}

func (r *reference) doDequeue(now float64) (p *referencePacket, okToDrop bool) {
	if len(r.queue) == 0 {
		r.firstAbove = 0
		return nil, false
	}
	head := r.queue[0]
	r.queue = r.queue[1:]
	r.bytes -= head.bytes
	sojourn := now - head.stamp
	if sojourn < r.target || r.bytes <= r.maxPacket {
		r.firstAbove = 0
	} else if r.firstAbove == 0 {
		r.firstAbove = now + r.interval
	} else if now >= r.firstAbove {
		okToDrop = true
	}
	return &head, okToDrop
}

func (r *reference) law(t float64) float64 {
	return t + math.Trunc(r.interval/math.Sqrt(float64(r.count)))
}

func (r *reference) mark(p *referencePacket) bool {
	if p.ect {
		r.marked = append(r.marked, p.id)
	}
	return p.ect
}

func (r *reference) drop(p *referencePacket) { r.dropped = append(r.dropped, p.id) }

func (r *reference) dequeue(now float64) *referencePacket {
	p, ok := r.doDequeue(now)
	if r.dropping {
		if !ok {
			r.dropping = false
		}
		for now >= r.dropNext && r.dropping {
			r.count++
			if r.mark(p) {
				r.dropNext = r.law(r.dropNext)
				break
			}
			r.drop(p)
			p, ok = r.doDequeue(now)
			if !ok {
				r.dropping = false
			} else {
				r.dropNext = r.law(r.dropNext)
			}
		}
	} else if ok {
		if !r.mark(p) {
			r.drop(p)
			p, _ = r.doDequeue(now)
		}
		r.dropping = true
		delta := r.count - r.lastCount
		r.count = 1
		if delta > 1 && now-r.dropNext < 16*r.interval {
			r.count = delta
		}
		r.dropNext = r.law(now)
		r.lastCount = r.count
	}
	return p
}

// TestCoDelEqualsRFC8289 runs one flow and the pseudocode side by side through phases of load, with and
// without ECN. The reference counts in nanoseconds too: float64 is exact for them.
func TestCoDelEqualsRFC8289(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 77))
		ref := &reference{target: float64(5 * ms), interval: float64(100 * ms), maxPacket: mtu}
		var dropped, marked []int
		p := newPool(t, Config[referencePacket]{
			LimitPackets: 1 << 20, LimitBytes: 1 << 30, PoolItems: 1 << 20,
			Drop: func(p referencePacket, _ Reason) { dropped = append(dropped, p.id) },
			Mark: func(p *referencePacket) bool {
				if p.ect {
					marked = append(marked, p.id)
				}
				return p.ect
			},
		})
		q := p.NewQueue()
		ecn := seed%3 == 0
		now, id := int64(1), 0
		for range 12 {
			arrivalEvery, serviceEvery := ms/4+rng.Int64N(3*ms), ms/4+rng.Int64N(3*ms)
			arrival, service := now, now
			for end := now + 2000*ms; now < end; {
				if arrival <= service {
					now = arrival
					arrival += arrivalEvery/2 + rng.Int64N(arrivalEvery)
					id++
					item := referencePacket{id: id, bytes: 40 + rng.IntN(mtu-40), stamp: float64(now), ect: ecn && rng.IntN(2) == 0}
					ref.push(item)
					q.Push(item, 1, item.bytes, now)
					continue
				}
				now = service
				service += serviceEvery
				want := ref.dequeue(float64(now))
				got, ok := q.Pop(now)
				if ok != (want != nil) || ok && got != *want {
					t.Fatalf("seed %d at %d: popped %v %v, want %v", seed, now, got, ok, want)
				}
			}
		}
		if !equal(dropped, ref.dropped) || !equal(marked, ref.marked) {
			t.Fatalf("seed %d: dropped %v, want %v; marked %v, want %v", seed, dropped, ref.dropped, marked, ref.marked)
		}
		if s := q.Stats(); int(s.Dropped[DropCoDel]) != len(dropped) || int(s.Marked) != len(marked) {
			t.Errorf("stats %+v", s)
		}
		if seed == 0 && len(marked) == 0 || seed == 1 && len(dropped) < 10 {
			t.Errorf("seed %d: %d drops, %d marks: the test tests nothing", seed, len(dropped), len(marked))
		}
	}
}

func equal(a, b []int) bool {
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

// TestControlLaw looks at the times of drops from a queue that never gets shorter.
func TestControlLaw(t *testing.T) {
	var drops []int64
	now := int64(0)
	p := newPool(t, Config[int]{
		LimitPackets: 1 << 20, LimitBytes: 1 << 30, PoolItems: 1 << 20,
		Drop: func(int, Reason) { drops = append(drops, now) },
	})
	q := p.NewQueue()
	for range 200 {
		q.Push(0, 1, 1000, now)
	}
	now = 50 * ms
	for len(drops) < 30 {
		q.Push(0, 1, 1000, now-50*ms) // always 50 ms old
		q.Pop(now)
		now += ms / 8
	}
	if first := drops[0] - 50*ms; first < 100*ms || first > 101*ms {
		t.Errorf("first drop after %d ns above the target", first)
	}
	next := drops[0]
	for k, at := range drops {
		if at < next || at > next+ms/4 {
			t.Errorf("drop %d at %d, want %d", k, at, next)
		}
		if k == 0 {
			next = at
		}
		next += int64(float64(100*ms) / math.Sqrt(float64(k+1)))
	}
}

// TestSuperPacketsAreNoStandingQueue sends 64 KB items over a link that takes 26 ms for each: with one
// waiting behind the one in service nothing may be dropped, with many it must be.
func TestSuperPacketsAreNoStandingQueue(t *testing.T) {
	for depth, want := range map[int]bool{2: false, 8: true} {
		p := newPool(t, Config[int]{})
		q := p.NewQueue()
		now := int64(0)
		for range 400 {
			for q.Len() < depth {
				q.Push(0, 1, 65000, now)
			}
			q.Pop(now)
			now += 26 * ms
		}
		if got := q.Stats().Dropped[DropCoDel] > 0; got != want {
			t.Errorf("depth %d: %d drops", depth, q.Stats().Dropped[DropCoDel])
		}
	}
}

// TestDelayUnderResponsiveLoad lets four AIMD senders share a link of 10 Mbit/s with 40 ms of round trip
// time: the delay stays near the target and the link busy.
func TestDelayUnderResponsiveLoad(t *testing.T) {
	type packet struct{ sender int }
	const senders, rtt, service = 4, 40 * ms, 1212 * 1000 // 1514 bytes at 10 Mbit/s
	var window [senders]float64
	var inFlight [senders]int
	var cutUntil [senders]int64
	now := int64(1)
	congested := func(s int) {
		if now >= cutUntil[s] {
			window[s] = max(1, window[s]/2)
			cutUntil[s] = now + rtt
		}
	}
	p := newPool(t, Config[packet]{
		Drop: func(k packet, _ Reason) { inFlight[k.sender]--; congested(k.sender) },
	})
	q := p.NewQueue()
	type ack struct {
		at     int64
		sender int
	}
	var acks []ack
	for s := range window {
		window[s] = 10
	}
	var sojourns, sent, slots int64
	for ; now < 60_000*ms; now += service {
		for len(acks) > 0 && acks[0].at <= now {
			s := acks[0].sender
			acks = acks[1:]
			inFlight[s]--
			window[s] += 1 / window[s]
		}
		for s := range window {
			for inFlight[s] < int(window[s]) {
				inFlight[s]++
				q.Push(packet{s}, uint32(s), mtu, now)
			}
		}
		k, ok := q.Pop(now)
		if now > 10_000*ms {
			slots++
			if ok {
				sent++
				sojourns += q.Stats().LastSojournNanos
			}
		}
		if ok {
			acks = append(acks, ack{now + rtt, k.sender})
		}
	}
	if mean := sojourns / sent; mean > 15*ms {
		t.Errorf("mean delay %d us", mean/1000)
	}
	if sent*100 < slots*90 {
		t.Errorf("link used %d of %d", sent, slots)
	}
}

package path

import "testing"

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

package netsim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"testing"
)

var (
	onlySeed  = flag.Uint64("netsim.seed", 0, "run only the schedule with this seed")
	traceFlag = flag.Int("netsim.trace", 80, "how many lines of a failing schedule are shown")
	packets   = flag.Bool("netsim.packets", false, "show packets too")
	schedules = flag.Int("netsim.schedules", 0, "how many schedules each test runs; 0 is some seconds' worth")
)

// seeds runs a schedule for every seed of a test, or for the one that was asked for. run returns what went wrong.
func seeds(t *testing.T, usual int, run func(seed uint64) (fault string)) {
	t.Helper()
	if *onlySeed != 0 {
		check(t, *onlySeed, run)
		return
	}
	count := usual
	switch {
	case *schedules > 0:
		count = *schedules
	case testing.Short():
		count = max(usual/10, 1)
	case raceEnabled:
		count = max(usual/20, 1)
	}
	for seed := uint64(1); seed <= uint64(count) && !t.Failed(); seed++ {
		check(t, seed, run)
	}
}

func check(t *testing.T, seed uint64, run func(seed uint64) string) {
	t.Helper()
	if fault := run(seed); fault != "" {
		t.Errorf("%s\nthis was seed %d; to run it again: go test ./dataplane/netsim -run '^%s$' -netsim.seed=%d",
			fault, seed, t.Name(), seed)
	}
}

// drawStyle makes up what a schedule is like.
func drawStyle(seed uint64) style {
	rng := rand.New(rand.NewPCG(seed, 3))
	of := func(all ...float64) float64 { return all[rng.IntN(len(all))] }
	nanos := func(all ...int64) int64 { return all[rng.IntN(len(all))] }
	s := style{
		members: 1 + rng.IntN(4)/3, nat: rng.IntN(2) == 0, ipv6: rng.IntN(4) == 0, storm: nanos(10, 20, 60) * second,
		packets: of(0.5, 2, 6), burst: 1 + rng.IntN(6),
		breaks: of(0, 0.01, 0.05, 0.2), orderly: of(0, 0.2), ratchets: of(0, 0.05, 0.3), moves: of(0, 0.05, 0.3),
		pathChanges: of(0, 0.1, 0.5), attacks: of(0, 0.5, 1), amnesia: of(0, 0, 0.02),
		lagNanos: nanos(0, 20*millisecond, second), bothDial: rng.IntN(3) == 0, localMTU: rng.IntN(4) == 0,
		pathMTU: int(nanos(0, 1500, 1400, 1280, 1124, 700)), maxInnerBytes: int(nanos(300, 1280, 1500, 4000)),
		knowsEndLate: nanos(0, 2, 30) * second, redialNanos: nanos(0, 3, 20) * second,
		messageDelayNanos: nanos(0, 50*millisecond, 2*second), deadNanos: nanos(0, 3, 20) * second,
		stallNanos: nanos(0, 0, 2*second), mtuMin: int(nanos(0, 0, 1280, 600)),
		natIdleNanos: nanos(0, 30*second), ecn: rng.IntN(4) == 0,
	}
	if s.ipv6 && s.pathMTU > 0 {
		s.pathMTU = max(s.pathMTU, 1280)
	}
	for i := range s.link {
		s.link[i] = Conditions{
			DelayNanos: nanos(millisecond, 10*millisecond, 80*millisecond), JitterNanos: nanos(0, 5*millisecond),
			Loss: of(0, 0.001, 0.02, 0.1), Duplicate: of(0, 0.02, 0.1), Corrupt: of(0, 0, 0.01),
			Reorder: of(0, 0.02, 0.3), HoldNanos: nanos(5*millisecond, 200*millisecond, 900*millisecond),
		}
		if s.ecn {
			s.link[i].MarkCE = of(0, 0.1)
		}
	}
	return s
}

// drawLossless makes up a schedule in which the network loses nothing.
func drawLossless(seed uint64) style {
	s := drawStyle(seed)
	s.lossless = true
	s.moves, s.amnesia, s.orderly, s.localMTU, s.mtuMin, s.deadNanos = 0, 0, 0, false, 0, 0
	s.natIdleNanos, s.stallNanos = 0, min(s.stallNanos, second)
	s.knowsEndLate, s.redialNanos = min(s.knowsEndLate, 5*second), min(s.redialNanos, 10*second)
	s.maxInnerBytes = min(s.maxInnerBytes, 1280)
	mtu := max(s.pathMTU, 576)
	if s.ipv6 {
		mtu = max(mtu, 1280)
	}
	s.pathMTU = mtu
	for i := range s.link {
		c := &s.link[i]
		c.Loss, c.Corrupt, c.MarkCE, c.MTUBytes = 0, 0, 0, mtu
		c.HoldNanos = min(c.HoldNanos, 20*millisecond)
	}
	return s
}

// withParts plays a schedule over machines that are made of the product's parts.
func withParts(seed uint64, s style) *world {
	w := newWorld(seed, s)
	w.parts(w.run)
	return w
}

// parts runs a schedule over machines that are made of the product's parts.
func (w *world) parts(run func()) {
	for _, nd := range w.nodes {
		nd.machine = newParts(nd)
	}
	w.guarded(run)
}

// guarded runs a schedule, in which a panic is a fault.
func (w *world) guarded(run func()) {
	defer func() {
		if r := recover(); r != nil {
			w.failf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	run()
}

func fault(w *world) string {
	if w.fault == "" {
		return ""
	}
	return fmt.Sprintf("%+v\n%s", w.style, w.report())
}

// need sees that schedules have come to something: one that nothing happens in shows nothing.
func need(t *testing.T, what map[string]int) {
	t.Helper()
	for name, count := range what {
		if count == 0 && *onlySeed == 0 && !t.Failed() {
			t.Errorf("no schedule has had any %s", name)
		}
	}
}

// TestStorms lets lanes live through loss, reordering, duplicates, damage, dead links, changes of the path MTU, of
// addresses and NAT mappings, breaking sessions, restarts, ratchets and attacks.
func TestStorms(t *testing.T) {
	t.Parallel()
	var all counts
	seeds(t, 400, func(seed uint64) string {
		w := withParts(seed, drawStyle(seed))
		all.add(&w.counts)
		return fault(w)
	})
	need(t, map[string]int{
		"adoptions": all.adoptions, "failed adoptions": all.failedAdoptions, "ratchets": all.ratchets, "moves": all.moves,
		"attacks": all.attacks, "packets in pieces": all.joined, "packets over sessions": all.overSession,
		"packets over lanes": all.overLane,
	})
}

// TestNothingIsLost lets lanes live through ratchets, lost sessions and adoptions in a network without loss.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	var all counts
	seeds(t, 400, func(seed uint64) string {
		w := withParts(seed, drawLossless(seed))
		all.add(&w.counts)
		return fault(w)
	})
	need(t, map[string]int{
		"adoptions": all.adoptions, "ratchets": all.ratchets, "attacks": all.attacks, "packets in pieces": all.joined,
	})
}

// TestEngineStorms is [TestStorms] with whole engines.
func TestEngineStorms(t *testing.T) {
	t.Parallel()
	seeds(t, 60, func(seed uint64) string {
		return fault(withEngines(t, seed, drawStyle(seed)))
	})
}

// TestEnginesLoseNothing is [TestNothingIsLost] with whole engines.
func TestEnginesLoseNothing(t *testing.T) {
	t.Parallel()
	seeds(t, 60, func(seed uint64) string {
		return fault(withEngines(t, seed, drawLossless(seed)))
	})
}

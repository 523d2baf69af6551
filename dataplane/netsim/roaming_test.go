package netsim

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

const (
	// pace is how often both hosts send in a test of roaming or of the path MTU.
	pace = 50 * millisecond
	// blackHoleNanos is how soon a lane must have found out that long packets do not arrive any more.
	blackHoleNanos = 3 * second
)

// steady starts a world in which a member and the gateway send at a pace, and nothing else happens.
func (w *world) steady(bytes func() int) {
	member, gateway := w.nodes[1], w.nodes[0]
	w.dial(member, gateway)
	w.net.After(tickNanos, w.tick)
	var beat func()
	beat = func() {
		w.net.After(pace, beat)
		n := bytes()
		w.sendInner(member, gateway, n, false)
		w.sendInner(gateway, member, n, false)
	}
	w.net.After(second, beat)
	w.drive(12 * second)
	if w.fault == "" && (!member.machine.carries(gateway) || !gateway.machine.carries(member)) {
		w.failf("no lane after 12 s of a network without faults")
	}
}

func steadyStyle(seed uint64) (style, *rand.Rand) {
	rng := rand.New(rand.NewPCG(seed, 4))
	s := style{members: 1, nat: rng.IntN(3) > 0, ipv6: rng.IntN(4) == 0, maxInnerBytes: 1280, lagNanos: 20 * millisecond}
	for i := range s.link {
		s.link[i].DelayNanos = 1 + rng.Int64N(60*millisecond)
		s.link[i].JitterNanos = rng.Int64N(5 * millisecond)
	}
	return s, rng
}

// roams moves a member again and again and sees that its peer follows: within a round trip of the first packet that comes
// from there, never with more than three times what has come before it has answered, and for good.
func (w *world) roams(rng *rand.Rand) {
	member, gateway := w.nodes[1], w.nodes[0]
	w.steady(func() int { return 100 })
	roundTrip := 2*w.oneWay(member, gateway) + 4*5*millisecond
	for range 4 {
		w.drive(w.net.Nanos() + rng.Int64N(4*second))
		if w.fault != "" {
			return
		}
		s := gateway.parties[1].current.side
		before := s.lastFrom
		member.move()
		w.drive(w.net.Nanos() + roundTrip + pace) // until the first packet has come
		where := s.lastFrom
		if w.fault == "" && where == before {
			w.failf("the gateway still gets packets from %v", before)
			return
		}
		w.drive(w.net.Nanos() + roundTrip + 2*pace)
		w.follows(s, where, roundTrip+2*pace)
	}
	w.farewell()
}

// follows sees that an end of a lane sends to a new place, and did so soon after it had heard from there.
func (w *world) follows(s *side, where netip.AddrPort, within int64) {
	p := s.place(where)
	switch {
	case w.fault != "":
	case p.dataAt == 0:
		w.failf("nothing goes to %v, where packets have come from since %.4f", where, float64(s.firstFrom[where])/1e9)
	case p.dataAt-s.firstFrom[where] > within:
		w.failf("packets go to %v %.4f s after the first has come from there", where,
			float64(p.dataAt-s.firstFrom[where])/1e9)
	case s.lastData != where:
		w.failf("packets go to %v, not to %v", s.lastData, where)
	}
}

// TestRoaming moves a member to other addresses and ports, behind NATs of all kinds and without one.
func TestRoaming(t *testing.T) {
	t.Parallel()
	seeds(t, 150, func(seed uint64) string {
		s, rng := steadyStyle(seed)
		w := newWorld(seed, s)
		w.parts(func() { w.roams(rng) })
		return fault(w)
	})
}

// TestEngineRoaming is [TestRoaming] with whole engines.
func TestEngineRoaming(t *testing.T) {
	t.Parallel()
	seeds(t, 20, func(seed uint64) string {
		s, rng := steadyStyle(seed)
		w := newWorld(seed, s)
		w.bubble(t, func() { w.roams(rng) })
		return fault(w)
	})
}

// shrinks has a path with one MTU become one with a smaller MTU in each direction, and sees that lanes find out: the first
// to the byte before 12 s, the second within 3 s of traffic, and in the end to the byte too.
func (w *world) shrinks(rng *rand.Rand) {
	member, gateway := w.nodes[1], w.nodes[0]
	ways := [][2]*node{{member, gateway}, {gateway, member}}
	full := true
	w.steady(func() int {
		full = !full
		if full { // as long as passes in one, or in pieces
			return min(max(member.machine.maxInner(gateway), 100), max(gateway.machine.maxInner(member), 100))
		}
		return 1201 + rng.IntN(79) // longer than what every path carries, whatever the lane has found
	})
	for _, way := range ways {
		w.hasFound(way[0], way[1])
	}
	up, down := member.host.Up(), member.host.Down()
	up.MTUBytes = w.minMTUBytes() + rng.IntN(up.MTUBytes-w.minMTUBytes()+1)
	down.MTUBytes = w.minMTUBytes() + rng.IntN(down.MTUBytes-w.minMTUBytes()+1)
	w.logf("the path carries %d and %d bytes from now on", up.MTUBytes, down.MTUBytes)
	member.host.SetLink(up, down)
	w.drive(w.net.Nanos() + blackHoleNanos)
	for _, way := range ways {
		if size := sealedBytes(way[0].machine.maxInner(way[1])); w.fault == "" && size > w.carried(way[0], way[1]) &&
			!w.inPieces(size) {
			w.failf("node %d sends packets of %d bytes, the path carries %d since %d s ago", way[0].index, size,
				w.carried(way[0], way[1]), blackHoleNanos/second)
		}
	}
	w.drive(w.net.Nanos() + 10*second)
	for _, way := range ways {
		w.hasFound(way[0], way[1])
	}
	w.farewell()
}

// carried is the longest UDP payload that gets from one node to another.
func (w *world) carried(from, to *node) int {
	return min(min(from.host.Up().MTUBytes, to.host.Down().MTUBytes)-HeaderBytes(from.addr), maxPacketBytes)
}

// inPieces reports whether a size is that of a machine which tells what passes in pieces.
func (w *world) inPieces(size int) bool {
	_, whole := w.nodes[0].machine.(*engine)
	return whole && size == sealedBytes(1280)
}

// hasFound sees that a lane's longest packet is what the path carries.
func (w *world) hasFound(from, to *node) {
	size, want := sealedBytes(from.machine.maxInner(to)), w.carried(from, to)
	if w.fault == "" && size != want && !(w.inPieces(size) && want < size) {
		w.failf("node %d has found %d bytes, the path carries %d", from.index, size, want)
	}
}

func shrinkingStyle(seed uint64) (style, *rand.Rand) {
	s, rng := steadyStyle(seed)
	least := 1280
	s.link[0].MTUBytes = least + rng.IntN(1500-least+1)
	s.link[1].MTUBytes = 1500
	s.lossless, s.pathMTU = true, s.link[0].MTUBytes
	return s, rng
}

// TestPathMTU lets lanes find out what their paths carry.
func TestPathMTU(t *testing.T) {
	t.Parallel()
	seeds(t, 100, func(seed uint64) string {
		s, rng := shrinkingStyle(seed)
		w := newWorld(seed, s)
		w.parts(func() { w.shrinks(rng) })
		return fault(w)
	})
}

// TestEnginePathMTU is [TestPathMTU] with whole engines.
func TestEnginePathMTU(t *testing.T) {
	t.Parallel()
	seeds(t, 20, func(seed uint64) string {
		s, rng := shrinkingStyle(seed)
		w := newWorld(seed, s)
		w.bubble(t, func() { w.shrinks(rng) })
		return fault(w)
	})
}

// TestOneSeedIsOneSchedule runs schedules twice.
func TestOneSeedIsOneSchedule(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed <= 20; seed++ {
		first, again := withParts(seed, drawStyle(seed)), withParts(seed, drawStyle(seed))
		if first.net.Stats() != again.net.Stats() || first.counts != again.counts || first.lines != again.lines ||
			first.report() != again.report() {
			t.Fatalf("seed %d: two runs differ: %+v, %+v, %d lines\n%s\n\nand %+v, %+v, %d lines\n%s", seed,
				first.net.Stats(), first.counts, first.lines, first.report(), again.net.Stats(), again.counts, again.lines,
				again.report())
		}
	}
}

package path

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

func address(n int) Address {
	return Address{
		Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), uint16(4000+n)),
		Local:  netip.MustParseAddr("198.51.100.1"), InterfaceIndex: 2,
	}
}

var serial uint64

func nextData() (d lane.PathData) {
	serial++
	binary.BigEndian.PutUint64(d[:], serial)
	return d
}

// challenge returns the challenge that must be due.
func challenge(t *testing.T, v *Validation, to Address, now int64) lane.PathData {
	t.Helper()
	data := nextData()
	c, ok := v.Challenge(data, now)
	if !ok || c.To != to {
		t.Fatalf("challenge %v %v, want one to %v", c, ok, to)
	}
	if got, i := v.Active(); (c.Path == i) != (got == to) {
		t.Fatalf("challenge to %v has path %d, active is %d", to, c.Path, i)
	}
	return data
}

func noChallenge(t *testing.T, v *Validation, now int64) {
	t.Helper()
	if c, ok := v.Challenge(nextData(), now); ok {
		t.Fatalf("challenge to %v", c.To)
	}
}

func responded(t *testing.T, v *Validation, data lane.PathData, now int64, want Roaming) {
	t.Helper()
	if got, mine := v.Responded(data, now); got != want || !mine {
		t.Fatalf("response: %v %v, want %v", got, mine, want)
	}
}

func active(t *testing.T, v *Validation, want Address) {
	t.Helper()
	if got, _ := v.Active(); got != want {
		t.Fatalf("active %v, want %v", got, want)
	}
}

func TestRoam(t *testing.T) {
	old, now := address(1), int64(second)
	v := NewValidation(old, 0)
	v.Received(old, 10, true, 100, now)
	if v.NextNanos() != Never {
		t.Error("something due on a path that has not changed")
	}
	noChallenge(t, v, now)

	next := address(2)
	if got := v.Received(next, 9, false, 100, now); got != RoamingNone {
		t.Fatalf("an older packet: %v", got)
	}
	noChallenge(t, v, now)
	if got := v.Received(next, 11, true, 100, now); got != RoamingNew {
		t.Fatalf("the highest number from elsewhere: %v", got)
	}
	active(t, v, old)
	data := challenge(t, v, next, now)
	noChallenge(t, v, now)
	if _, mine := v.Responded(nextData(), now); mine {
		t.Fatal("took another response")
	}
	active(t, v, old)
	responded(t, v, data, now+50*millisecond, RoamingMoved)
	active(t, v, next)
	if _, mine := v.Responded(data, now); mine {
		t.Fatal("took a response twice")
	}

	// The path left is asked too, and kept: a packet from there is enough to go back.
	now += 60 * millisecond
	data = challenge(t, v, old, now)
	responded(t, v, data, now, RoamingNone)
	active(t, v, next)
	if got := v.Received(old, 11, false, 100, now); got != RoamingNone {
		t.Fatalf("an older packet from the old path: %v", got)
	}
	if got := v.Received(old, 12, true, 100, now+second); got != RoamingMoved {
		t.Fatalf("back: %v", got)
	}
	active(t, v, old)
}

func TestSparePathGrowsOld(t *testing.T) {
	old, next, now := address(1), address(2), int64(0)
	v := NewValidation(old, 0)
	v.Received(next, 1, true, 100, now)
	responded(t, v, challenge(t, v, next, now), now, RoamingMoved)
	responded(t, v, challenge(t, v, old, now), now, RoamingNone)
	now += spareNanos
	if got := v.Received(old, 2, true, 100, now); got != RoamingNone {
		t.Fatalf("moved to a path that answered long ago: %v", got)
	}
	active(t, v, next)
	responded(t, v, challenge(t, v, old, now), now, RoamingMoved)
}

// A copy of a packet that overtakes the original moves nobody away from where the later ones come from.
func TestRacingCopy(t *testing.T) {
	honest, forged := address(1), address(2)
	v := NewValidation(honest, 0)
	v.Received(forged, 5, true, 100, 0)
	data := challenge(t, v, forged, 0)
	v.Received(honest, 6, true, 100, 10)
	responded(t, v, data, 20, RoamingNone) // whoever copies may pass the challenge on as well
	active(t, v, honest)
}

func TestChallengesBackOffAndEnd(t *testing.T) {
	v := NewValidation(address(1), 0)
	v.Received(address(2), 1, true, 10_000, 0)
	var at []int64
	for now := int64(0); now < 20*second; now += 10 * millisecond {
		if _, ok := v.Challenge(nextData(), now); ok {
			at = append(at, now/millisecond)
		}
	}
	want := []int64{0, 250, 750, 1750, 3750, 5750}
	if len(at) != len(want) {
		t.Fatalf("challenges at %v ms, want %v", at, want)
	}
	for i := range at {
		if at[i] != want[i] {
			t.Fatalf("challenges at %v ms, want %v", at, want)
		}
	}
	if v.NextNanos() != Never {
		t.Error("something due after the path was given up")
	}
	if got := v.Received(address(2), 2, true, 100, 21*second); got != RoamingNew {
		t.Errorf("heard again: %v", got)
	}
}

func TestLateResponseToEarlierChallenge(t *testing.T) {
	v := NewValidation(address(1), 0)
	v.Received(address(2), 1, true, 10_000, 0)
	first := challenge(t, v, address(2), 0)
	challenge(t, v, address(2), 250*millisecond)
	responded(t, v, first, 300*millisecond, RoamingMoved)
}

func TestAmplificationLimit(t *testing.T) {
	v := NewValidation(address(1), 0)
	next := address(2)
	v.Received(next, 1, true, 30, 0) // the shortest lane packet
	sent := 0
	for now := int64(0); now < 6*second; now += 10 * millisecond {
		if _, ok := v.Challenge(nextData(), now); ok {
			sent += ChallengeBytes
		}
		if v.MaySend(next, 40) {
			sent += 40
		}
	}
	if sent == 0 || sent > 90 {
		t.Errorf("%d bytes sent for 30", sent)
	}
	if v.MaySend(address(3), 1) {
		t.Error("may send to an unknown address")
	}
	if !v.MaySend(address(1), 1<<30) {
		t.Error("may not send to the active path")
	}
	v = NewValidation(address(1), 0)
	v.Received(next, 1, true, 100, 0)
	responded(t, v, challenge(t, v, next, 0), 0, RoamingMoved)
	if !v.MaySend(next, 1<<30) {
		t.Error("may not send to a validated path")
	}
}

func TestTry(t *testing.T) {
	v := NewValidation(address(1), 0)
	v.Received(address(1), 100, true, 1000, 0)
	if v.Try(address(1), 0) != RoamingNone {
		t.Error("asks the active path")
	}
	if v.Try(address(2), 0) != RoamingNew {
		t.Error("not new")
	}
	responded(t, v, challenge(t, v, address(2), 0), 10, RoamingMoved)
	active(t, v, address(2))
	responded(t, v, challenge(t, v, address(1), 10), 20, RoamingNone)
	active(t, v, address(2))
	v.Received(address(2), 99, false, 100, 30)
	if v.Received(address(1), 101, true, 100, 40) != RoamingMoved {
		t.Error("did not follow the other end back")
	}
}

// A path known already can be wanted as well.
func TestTryKnown(t *testing.T) {
	v := NewValidation(address(1), 0)
	v.Received(address(2), 1, true, 100, 0)
	challenge(t, v, address(2), 0)
	v.Received(address(1), 2, true, 100, 10)
	if v.Try(address(2), 20) != RoamingNone {
		t.Error("a known path is new")
	}
	responded(t, v, challenge(t, v, address(2), 20), 30, RoamingMoved)
	active(t, v, address(2))
}

func TestFallBack(t *testing.T) {
	v := NewValidation(address(1), 0)
	if v.FallBack(0) != RoamingNone {
		t.Error("fell back to nothing")
	}
	v.Received(address(2), 1, true, 100, 0)
	responded(t, v, challenge(t, v, address(2), 0), 0, RoamingMoved)
	if v.FallBack(0) != RoamingNone {
		t.Error("fell back to a path that has not answered")
	}
	responded(t, v, challenge(t, v, address(1), 0), 0, RoamingNone)
	if v.FallBack(second) != RoamingMoved {
		t.Error("did not fall back")
	}
	active(t, v, address(1))
}

// However addresses come and go: no more than MaxPaths are known, the active one is always one that was validated, and
// no address gets more than three times what came from it before it has answered.
func TestValidationSimulation(t *testing.T) {
	for seed := range seeds(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		v := NewValidation(address(0), 0)
		valid := map[Address]bool{address(0): true}
		sent, received := map[Address]int{}, map[Address]int{}
		pending := map[lane.PathData]Address{}
		number := uint64(0)
		for now := int64(0); now < 20*second; now += 10 * millisecond {
			from := address(random.IntN(8))
			bytes := 30 + random.IntN(200)
			highest := random.IntN(2) == 0
			if highest {
				number++
			}
			received[from] += bytes
			v.Received(from, number, highest, bytes, now)
			for {
				data := nextData()
				c, ok := v.Challenge(data, now)
				if !ok {
					break
				}
				pending[data] = c.To
				sent[c.To] += ChallengeBytes
			}
			for data, to := range pending {
				if random.IntN(20) == 0 {
					delete(pending, data)
					if _, mine := v.Responded(data, now); mine {
						valid[to] = true
					}
				}
			}
			if a, i := v.Active(); !valid[a] || i >= MaxPaths {
				t.Fatalf("seed %d: active %v was never validated", seed, a)
			}
			for a, n := range sent {
				if !valid[a] && n > 3*received[a] {
					t.Fatalf("seed %d: %d bytes to %v for %d", seed, n, a, received[a])
				}
			}
		}
	}
}

func BenchmarkReceivedElsewhere(b *testing.B) {
	v := NewValidation(address(1), 0)
	v.Received(address(2), 1, true, 1000, 0)
	from := address(2)
	b.ReportAllocs()
	for n := uint64(2); b.Loop(); n++ {
		v.Received(from, n, true, 1000, 1)
	}
}

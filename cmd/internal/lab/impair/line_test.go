package impair

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"
)

// frameOf returns an Ethernet frame with an IPv4 packet of some bytes and a number in it.
func frameOf(protocol byte, bytes int, number uint32) []byte {
	frame := make([]byte, ethernetBytes+bytes)
	binary.BigEndian.PutUint16(frame[12:], etherTypeIPv4)
	packet := frame[ethernetBytes:]
	packet[0] = 0x45
	binary.BigEndian.PutUint16(packet[2:], uint16(bytes))
	packet[9] = protocol
	binary.BigEndian.PutUint32(packet[20:], number)
	return frame
}

const protoTCP = 6

func numberOf(frame []byte) uint32 { return binary.BigEndian.Uint32(frame[ethernetBytes+20:]) }

// arrival is a frame as it came out of a line.
type arrival struct {
	number uint32
	at     time.Duration
}

// newLine returns a line with impairments.
func newLine(t *testing.T, seed uint64, i Impairments) *Line {
	t.Helper()
	l := NewLine(seed)
	if err := l.Set(0, i); err != nil {
		t.Fatal(err)
	}
	return l
}

// drain takes everything that arrives up to a time, each frame at the moment the line says.
func drain(l *Line, until time.Duration) []arrival {
	var all []arrival
	for next := l.Next(); next <= until; next = l.Next() {
		for {
			frame, ok := l.Take(next)
			if !ok {
				break
			}
			all = append(all, arrival{numberOf(frame), next})
		}
	}
	return all
}

// send offers frames at an even pace, taking what arrives meanwhile and afterwards.
func send(l *Line, frames, bytes int, every time.Duration) []arrival {
	var all []arrival
	for n := range frames {
		now := time.Duration(n) * every
		all = append(all, drain(l, now)...)
		l.Offer(now, frameOf(protoTCP, bytes, uint32(n)))
	}
	return append(all, drain(l, Never-1)...)
}

func TestPerfectLinePassesAtOnce(t *testing.T) {
	l := NewLine(1)
	for n := range uint32(100) {
		now := time.Duration(n)
		if v := l.Offer(now, frameOf(protoTCP, 60, n)); v != Accepted {
			t.Fatalf("frame %d: %v", n, v)
		}
		frame, ok := l.Take(now)
		if !ok || numberOf(frame) != n {
			t.Fatalf("frame %d did not arrive at once", n)
		}
	}
	if l.Next() != Never {
		t.Errorf("next at %v with nothing under way", l.Next())
	}
}

func TestDelayIsExact(t *testing.T) {
	l := newLine(t, 1, Impairments{Delay: 20 * time.Millisecond})
	for _, a := range send(l, 100, 100, time.Millisecond) {
		want := time.Duration(a.number)*time.Millisecond + 20*time.Millisecond
		if a.at != want {
			t.Fatalf("frame %d at %v, want %v", a.number, a.at, want)
		}
	}
}

func TestRate(t *testing.T) {
	for _, test := range []struct {
		bitsPerSecond int64
		bytes         int
	}{{1e6, 1500}, {20e6, 1500}, {20e6, 64}, {333_333_333, 777}, {1e9, 1420}, {7_000_000_001, 9000}} {
		l := newLine(t, 1, Impairments{BitsPerSecond: test.bitsPerSecond})
		const seconds = 1
		frameTime := time.Duration(int64(test.bytes) * 8 * int64(time.Second) / test.bitsPerSecond)
		frame := frameOf(protoTCP, test.bytes, 0)
		var bytes int64
		for now := time.Duration(0); now < seconds*time.Second; now += frameTime / 2 { // twice what it carries
			l.Offer(now, frame)
			for _, ok := l.Take(now); ok; _, ok = l.Take(now) {
				bytes += int64(test.bytes)
			}
		}
		want := float64(test.bitsPerSecond) / 8 * seconds
		// The last frame may still be in the transmitter.
		if diff := want - float64(bytes); diff < -1 || diff > float64(2*test.bytes) {
			t.Errorf("%d bit/s with %d bytes: %d bytes in %d s, want %.0f",
				test.bitsPerSecond, test.bytes, bytes, seconds, want)
		}
		if l.Counters().QueueFull == 0 {
			t.Errorf("%d bit/s: nothing was dropped at twice the rate", test.bitsPerSecond)
		}
	}
}

func TestQueueDepth(t *testing.T) {
	l := newLine(t, 1, Impairments{BitsPerSecond: 8000, QueueBytes: 10_000}) // a byte per millisecond
	accepted := 0
	for n := range uint32(100) {
		if l.Offer(0, frameOf(protoTCP, 1000, n)) == Accepted {
			accepted++
		}
	}
	if accepted != 11 { // one in the transmitter, ten behind it
		t.Fatalf("%d frames accepted, want 11", accepted)
	}
	all := drain(l, Never-1)
	for i, a := range all {
		if want := time.Duration(i+1) * time.Second; a.at != want || a.number != uint32(i) {
			t.Errorf("arrival %d: %+v, want number %d at %v", i, a, i, want)
		}
	}
}

func TestRateChangesOnTheWay(t *testing.T) {
	l := newLine(t, 1, Impairments{BitsPerSecond: 8000, QueueBytes: 10_000})
	for n := range uint32(3) {
		l.Offer(0, frameOf(protoTCP, 1000, n))
	}
	if err := l.Set(500*time.Millisecond, Impairments{BitsPerSecond: 16_000}); err != nil {
		t.Fatal(err)
	}
	got := drain(l, 1200*time.Millisecond)
	if err := l.Set(1200*time.Millisecond, Impairments{}); err != nil {
		t.Fatal(err)
	}
	l.Offer(1200*time.Millisecond, frameOf(protoTCP, 1000, 3))
	got = append(got, drain(l, Never-1)...)
	const second = time.Second
	want := []arrival{{0, second}, {1, 3 * second / 2}, {2, 3 * second / 2}, {3, 3 * second / 2}}
	if !slices.Equal(got, want) {
		t.Errorf("arrivals %v, want %v", got, want)
	}
}

func TestLossMatchesItsSettings(t *testing.T) {
	const frames = 60_000
	for _, test := range []struct{ loss, burst float64 }{{0.01, 0}, {0.2, 1}, {0.02, 3}, {0.1, 10}, {1, 0}} {
		l := newLine(t, 42, Impairments{Loss: test.loss, LossBurst: test.burst})
		all := send(l, frames, 60, time.Microsecond)
		lost := frames - len(all)
		bursts, next := 0, uint32(0)
		for _, a := range all {
			if a.number != next {
				bursts++
			}
			next = a.number + 1
		}
		if next != frames {
			bursts++
		}
		if got := float64(lost) / frames; math.Abs(got-test.loss) > 0.06*test.loss {
			t.Errorf("loss %v in bursts of %v: lost %v", test.loss, test.burst, got)
		}
		wantBurst := max(test.burst, 1/(1-test.loss)) // independent losses also come in a row
		if got := float64(lost) / float64(bursts); test.loss < 1 && math.Abs(got-wantBurst) > 0.06*wantBurst {
			t.Errorf("loss %v in bursts of %v: mean burst %v, want %v", test.loss, test.burst, got, wantBurst)
		}
		if got := l.Counters().Lost; got != int64(lost) {
			t.Errorf("counter of lost frames is %d, want %d", got, lost)
		}
	}
}

func TestJitterKeepsOrder(t *testing.T) {
	l := newLine(t, 7, Impairments{Delay: 5 * time.Millisecond, Jitter: 10 * time.Millisecond})
	all := send(l, 2000, 60, 20*time.Millisecond)
	var least, most time.Duration = Never, 0
	const ms = time.Millisecond
	for i, a := range all {
		if a.number != uint32(i) {
			t.Fatalf("arrival %d is frame %d", i, a.number)
		}
		delay := a.at - time.Duration(a.number)*20*time.Millisecond
		least, most = min(least, delay), max(most, delay)
	}
	if least < 5*ms || least > 6*ms || most > 15*ms || most < 14*ms {
		t.Errorf("delays from %v to %v, want to fill 5 ms to 15 ms", least, most)
	}
	all = send(newLine(t, 7, Impairments{Jitter: 10 * ms}), 2000, 60, ms)
	if !slices.IsSortedFunc(all, func(a, b arrival) int { return int(a.number) - int(b.number) }) {
		t.Error("jitter larger than the gaps reordered frames")
	}
}

func TestReorderHoldsBackSome(t *testing.T) {
	l := newLine(t, 3, Impairments{Delay: time.Millisecond, Reorder: 0.1, ReorderDelay: 5 * time.Millisecond})
	all := send(l, 10_000, 60, time.Millisecond)
	held := int64(0)
	for _, a := range all {
		switch a.at - time.Duration(a.number)*time.Millisecond {
		case time.Millisecond:
		case 6 * time.Millisecond:
			held++
		default:
			t.Fatalf("frame %d at %v", a.number, a.at)
		}
	}
	if len(all) != 10_000 || held != l.Counters().Reordered || held < 850 || held > 1150 {
		t.Errorf("%d frames arrived, %d of them late, counter %d; want 10000 and about 1000",
			len(all), held, l.Counters().Reordered)
	}
}

func TestDuplicatesArriveTwice(t *testing.T) {
	l := newLine(t, 3, Impairments{Duplicate: 0.25})
	all := send(l, 10_000, 60, time.Millisecond)
	twice := 0
	for i := 1; i < len(all); i++ {
		if all[i] == all[i-1] {
			twice++
		}
	}
	if len(all) != 10_000+twice || int64(twice) != l.Counters().Duplicated || twice < 2300 || twice > 2700 {
		t.Errorf("%d arrivals, %d of them twice, counter %d", len(all), twice, l.Counters().Duplicated)
	}
}

func TestBlocksAndMTU(t *testing.T) {
	arp := make([]byte, 60)
	binary.BigEndian.PutUint16(arp[12:], 0x0806)
	udpFrame, tcpFrame, long := frameOf(protoUDP, 60, 0), frameOf(protoTCP, 1280, 0), frameOf(protoTCP, 1281, 0)
	for _, test := range []struct {
		name  string
		set   Impairments
		frame []byte
		want  Verdict
	}{
		{"UDP blocked", Impairments{BlockUDP: true}, udpFrame, Blocked},
		{"TCP beside blocked UDP", Impairments{BlockUDP: true}, tcpFrame, Accepted},
		{"all blocked", Impairments{BlockAll: true}, tcpFrame, Blocked},
		{"ARP with all blocked", Impairments{BlockAll: true}, arp, Blocked},
		{"ARP with all lost", Impairments{Loss: 1}, arp, Accepted},
		{"at the MTU", Impairments{MTU: 1280}, tcpFrame, Accepted},
		{"over the MTU", Impairments{MTU: 1280}, long, Oversized},
	} {
		l := newLine(t, 1, test.set)
		if got := l.Offer(0, test.frame); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
		if _, ok := l.Take(0); ok != (test.want == Accepted) {
			t.Errorf("%s: arrived %v", test.name, ok)
		}
	}
}

// Equal seeds and frames must give equal decisions, at another pace too and beside impairments that
// draw nothing.
func TestSameSeedSameDecisions(t *testing.T) {
	chance := Impairments{
		Loss: 0.1, LossBurst: 3, Duplicate: 0.05, Reorder: 0.05, ReorderDelay: time.Millisecond,
	}
	numbers := func(seed uint64, every time.Duration, change func(*Impairments)) []uint32 {
		i := chance
		change(&i)
		var n []uint32
		for _, a := range send(newLine(t, seed, i), 5000, 100, every) {
			n = append(n, a.number)
		}
		slices.Sort(n) // the pace decides who overtakes whom
		return n
	}
	none := func(*Impairments) {}
	first := numbers(99, time.Millisecond, none)
	if !slices.Equal(first, numbers(99, time.Millisecond, none)) {
		t.Error("the same run came out differently")
	}
	if !slices.Equal(first, numbers(99, time.Microsecond, none)) {
		t.Error("a faster sender met other losses")
	}
	slower := func(i *Impairments) { i.Jitter, i.BitsPerSecond = time.Second, 1e9 }
	if !slices.Equal(first, numbers(99, time.Millisecond, slower)) {
		t.Error("jitter and rate changed the losses")
	}
	if !slices.Equal(first, numbers(99, time.Millisecond, func(i *Impairments) { i.Reorder = 0 })) {
		t.Error("reordering changed the losses")
	}
	if slices.Equal(first, numbers(100, time.Millisecond, none)) {
		t.Error("another seed met the same losses")
	}
}

// No two questions of nearby frames may be answered by the same draw.
func TestDrawsAreTheirOwn(t *testing.T) {
	seen := make(map[float64]bool)
	for d := (dice{seed: 5}); d.frame < 10_000; d.frame++ {
		for question := range uint64(drawsPerFrame) {
			u := d.draw(question)
			if seen[u] || u < 0 || u >= 1 {
				t.Fatalf("frame %d, question %d: %v, seen %v", d.frame, question, u, seen[u])
			}
			seen[u] = true
		}
	}
}

func TestWireIsBounded(t *testing.T) {
	l := newLine(t, 1, Impairments{Delay: time.Minute})
	frame := frameOf(protoTCP, 1500, 0)
	l.wireLimit = int64(100*len(frame) + 1)
	for range 110 {
		l.Offer(0, frame)
	}
	if c := l.Counters(); c.WireFull != 10 {
		t.Errorf("%d frames dropped behind the transmitter, want 10: %+v", c.WireFull, c)
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	l := newLine(t, 1, Impairments{
		BitsPerSecond: 1e9, Delay: time.Millisecond, Jitter: time.Millisecond, Loss: 0.01,
	})
	frame := frameOf(protoTCP, 1500, 0)
	now := time.Duration(0)
	move := func() {
		for range 100 {
			now += 20 * time.Microsecond
			l.Offer(now, frame)
			for _, ok := l.Take(now); ok; _, ok = l.Take(now) {
				continue
			}
		}
	}
	move()
	move()
	if allocs := testing.AllocsPerRun(10, move); allocs != 0 {
		t.Errorf("%v allocations per 100 frames", allocs)
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		name string
		set  Impairments
		ok   bool
	}{
		{"nothing", Impairments{}, true},
		{"everything", Impairments{
			Delay: 1, Jitter: 1, Loss: 0.5, LossBurst: 2, Reorder: 1, ReorderDelay: 1, Duplicate: 1,
			BitsPerSecond: 1, QueueBytes: 1, MTU: 1,
		}, true},
		{"loss over 1", Impairments{Loss: 1.1}, false},
		{"loss not a number", Impairments{Loss: math.NaN()}, false},
		{"negative delay", Impairments{Delay: -1}, false},
		{"reorder by nothing", Impairments{Reorder: 0.1}, false},
		{"negative rate", Impairments{BitsPerSecond: -1}, false},
		{"bursts too short for their part", Impairments{Loss: 0.9, LossBurst: 2}, false},
		{"burst not a number", Impairments{LossBurst: math.NaN()}, false},
	} {
		if err := test.set.Validate(); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

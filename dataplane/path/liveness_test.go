package path

import "testing"

func TestSuspect(t *testing.T) {
	var l Liveness
	if l.Check(0) != SignNone || l.NextNanos() != Never {
		t.Fatal("an idle lane asks for something")
	}
	l.Sent(second)
	var pings []int64
	suspectAt := int64(0)
	for now := int64(second); now < 40*second; now += 10 * millisecond {
		due := now >= l.NextNanos()
		sign := l.Check(now)
		if due != (sign != SignNone) {
			t.Fatalf("at %d ms: due %v, sign %v", now/millisecond, due, sign)
		}
		switch sign {
		case SignPing:
			pings = append(pings, now/millisecond)
		case SignSuspect:
			if suspectAt > 0 {
				t.Fatal("suspect twice")
			}
			suspectAt = now
		case SignNone:
		}
		if l.Suspect() != (suspectAt > 0) {
			t.Fatal("suspect without a sign")
		}
		l.Sent(now) // what else is sent changes nothing
	}
	if suspectAt != second+SuspectNanos {
		t.Errorf("suspect after %d ms", (suspectAt-second)/millisecond)
	}
	want := []int64{1500, 1800, 2100, 2400, 3500, 5500, 9500, 17500, 32500}
	if len(pings) != len(want) {
		t.Fatalf("pings at %v, want %v", pings, want)
	}
	for i := range want {
		if pings[i] != want[i] {
			t.Fatalf("pings at %v, want %v", pings, want)
		}
	}
	if !l.Heard() || l.Suspect() || l.Heard() {
		t.Error("did not recover, or more than once")
	}
}

func TestAlive(t *testing.T) {
	var l Liveness
	for now := int64(0); now < 100*second; now += 10 * millisecond {
		l.Sent(now)
		if now%(490*millisecond) == 0 && l.Heard() {
			t.Fatal("recovered from nothing")
		}
		if sign := l.Check(now); sign != SignNone {
			t.Fatalf("sign %v at %d ms", sign, now/millisecond)
		}
	}
}

// After the host has slept for an hour the lane is asked before it is suspect.
func TestSleep(t *testing.T) {
	var l Liveness
	l.Sent(0)
	now := int64(3600 * second)
	if sign := l.Check(now); sign != SignPing {
		t.Fatalf("sign %v after a long sleep", sign)
	}
	if sign := l.Check(now + 990*millisecond); sign == SignSuspect {
		t.Fatal("suspect before the ping can be answered")
	}
	if sign := l.Check(now + second); sign != SignSuspect {
		t.Fatalf("sign %v", sign)
	}
}

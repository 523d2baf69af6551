package netmon

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCoalescer(t *testing.T) {
	const quiet, latest = 75 * time.Millisecond, 300 * time.Millisecond
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	c := &coalescer{quiet: quiet, latest: latest}
	if _, ok := c.due(); ok {
		t.Error("due with nothing pending")
	}
	c.add(at(0), Change{})
	if _, ok := c.due(); ok {
		t.Error("an empty change is pending")
	}
	c.add(at(0), Change{Link: true})
	c.add(at(50), Change{Address: true})
	if _, ok := c.take(at(124)); ok {
		t.Error("taken before it was quiet")
	}
	got, ok := c.take(at(125))
	if !ok || got != (Change{Link: true, Address: true}) {
		t.Errorf("after quiet: %+v, %v", got, ok)
	}
	if _, ok := c.take(at(1000)); ok {
		t.Error("taken twice")
	}
	for ms := 1000; ms < 1300; ms += 50 {
		c.add(at(ms), Change{Default: true})
		if _, ok := c.take(at(ms)); ok {
			t.Errorf("taken at %d ms during a burst", ms-1000)
		}
	}
	if got, ok := c.take(at(1300)); !ok || got != (Change{Default: true}) {
		t.Errorf("a burst without end: %+v, %v", got, ok)
	}
}

func TestUntakenEventsAreMerged(t *testing.T) {
	m := New(Config{})
	m.send(Change{Link: true})
	m.send(Change{Address: true})
	m.send(Change{Default: true})
	if got := <-m.Changes(); got != (Change{Link: true, Address: true, Default: true}) {
		t.Errorf("got %+v", got)
	}
	select {
	case got := <-m.Changes():
		t.Errorf("one more: %+v", got)
	default:
	}
}

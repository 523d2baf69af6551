package dataplane

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/dataplane/path"
)

// woken reports whether the keeper was woken since the last call.
func (k *keeper) woken() bool {
	select {
	case <-k.wake:
		return true
	default:
		return false
	}
}

// TestKeeperLooksAtWhatIsDue: of many lanes only those whose time has come, each once, the earliest first.
func TestKeeperLooksAtWhatIsDue(t *testing.T) {
	k := newKeeper()
	random := rand.New(rand.NewPCG(1, 2))
	lanes := make([]*Lane, 1000)
	at := make(map[*Lane]int64)
	for i := range lanes {
		lanes[i] = &Lane{}
	}
	for now := int64(0); now < 1000; now += 50 {
		for range 300 { // all kinds of changes
			l, when := lanes[random.IntN(len(lanes))], now+random.Int64N(500)
			if random.IntN(4) == 0 {
				when = path.Never
			}
			if random.IntN(2) == 0 {
				k.schedule(l, when)
			} else {
				k.again(l, when)
			}
			if at[l] = when; when == path.Never {
				delete(at, l)
			}
		}
		due := k.takeDue(nil, now)
		if !slices.IsSortedFunc(due, func(a, b *Lane) int { return int(a.kept.at - b.kept.at) }) {
			t.Fatalf("at %d: not in the order of time", now)
		}
		for _, l := range due {
			if when, ok := at[l]; !ok || when > now {
				t.Fatalf("at %d: looked at a lane of %d, %v", now, when, ok)
			}
			delete(at, l)
		}
		for _, when := range at {
			if when <= now {
				t.Fatalf("at %d: forgot a lane of %d", now, when)
			}
		}
	}
}

// TestKeeperWakes when a lane wants to be looked at earlier than it would look by itself, and not otherwise.
func TestKeeperWakes(t *testing.T) {
	k := newKeeper()
	x, y := &Lane{}, &Lane{}
	const second = int64(time.Second)
	k.schedule(x, 10*second)
	if !k.woken() {
		t.Error("slept through the first lane")
	}
	k.takeDue(nil, 0)
	if wait, ok := k.rest(0); !ok || wait != 10*time.Second {
		t.Errorf("waits %v, %v", wait, ok)
	}
	k.schedule(y, 11*second)
	k.schedule(x, 12*second)
	if k.woken() {
		t.Error("woken for what comes later")
	}
	k.schedule(y, 5*second)
	if !k.woken() {
		t.Error("slept through an earlier time")
	}
	if due := k.takeDue(nil, 5*second); !slices.Equal(due, []*Lane{y}) {
		t.Errorf("looked at %d lanes", len(due))
	}
	k.again(y, 5*second) // due again at once: not before the granule is over
	if k.woken() {
		t.Error("the keeper has woken itself")
	}
	k.schedule(x, 5*second) // but this is news
	if !k.woken() {
		t.Error("slept through news that came while it looked")
	}
	if wait, ok := k.rest(5 * second); !ok || wait != keeperGranule {
		t.Errorf("waits %v, %v", wait, ok)
	}
	k.remove(x)
	k.remove(y)
	k.schedule(x, 1)
	if due := k.takeDue(nil, path.Never-1); len(due) != 0 {
		t.Errorf("looked at %d closed lanes", len(due))
	}
	if wait, ok := k.rest(6 * second); ok {
		t.Errorf("waits %v for nothing", wait)
	}
}

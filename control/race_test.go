package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// attempt describes how a candidate behaves in virtual time.
type attempt struct {
	name  string
	takes time.Duration
	err   error
	deaf  bool // does not notice that it is cancelled
}

// runRace races attempts and returns the winner, when each started, how long it took, and what was discarded.
func runRace(t *testing.T, ctx context.Context, attempts []attempt) (won string, started map[string]time.Duration, took time.Duration, discarded []string, err error) {
	t.Helper()
	begin := time.Now()
	started = make(map[string]time.Duration)
	var mu sync.Mutex
	won, err = race(ctx, attempts, func(ctx context.Context, a attempt) (string, error) {
		mu.Lock()
		started[a.name] = time.Since(begin)
		mu.Unlock()
		done := ctx.Done()
		if a.deaf {
			done = nil
		}
		select {
		case <-time.After(a.takes):
			return a.name, a.err
		case <-done:
			return "", fmt.Errorf("%s: %w", a.name, ctx.Err())
		}
	}, func(name string) { discarded = append(discarded, name) })
	return won, started, time.Since(begin), discarded, err
}

func TestRaceStaggersAndTakesTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		won, started, took, _, err := runRace(t, t.Context(), []attempt{
			{name: "black hole", takes: time.Hour},
			{name: "slow", takes: 2 * time.Second},
			{name: "quick", takes: 100 * time.Millisecond},
		})
		if err != nil || won != "quick" {
			t.Fatalf("won %q, %v", won, err)
		}
		if started["slow"] != raceStagger || started["quick"] != 2*raceStagger {
			t.Errorf("started at %v", started)
		}
		if took != 2*raceStagger+100*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

func TestRaceGoesOnAtOnceAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		won, started, _, _, err := runRace(t, t.Context(), []attempt{
			{name: "refuses", takes: 10 * time.Millisecond, err: refused},
			{name: "good", takes: 10 * time.Millisecond},
		})
		if err != nil || won != "good" || started["good"] != 10*time.Millisecond {
			t.Errorf("won %q, %v, started %v", won, err, started)
		}
	})
}

func TestRaceJoinsAllFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := errors.New("one"), errors.New("two")
		_, _, _, _, err := runRace(t, t.Context(), []attempt{{name: "a", err: one}, {name: "b", err: two}})
		if !errors.Is(err, one) || !errors.Is(err, two) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRaceDiscardsLateSuccesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		won, _, _, discarded, err := runRace(t, t.Context(), []attempt{
			{name: "late", takes: time.Second, deaf: true}, {name: "first", takes: time.Millisecond},
		})
		if err != nil || won != "first" || !slices.Equal(discarded, []string{"late"}) {
			t.Errorf("won %q, %v, discarded %v", won, err, discarded)
		}
	})
}

func TestRaceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, took, _, err := runRace(t, ctx, []attempt{{name: "black hole", takes: time.Hour}})
		// The line for the user names what was tried.
		if !errors.Is(err, context.DeadlineExceeded) || took != time.Second || !strings.Contains(err.Error(), "black hole") {
			t.Errorf("got %v after %v", err, took)
		}
	})
}

func TestBackoff(t *testing.T) {
	for seed := range uint64(200) {
		b := newBackoff(seed)
		limit := firstRetry
		for range 12 {
			d := b.next()
			if d < limit/2 || d >= limit {
				t.Fatalf("seed %d: pause %v outside [%v, %v)", seed, d, limit/2, limit)
			}
			limit = min(2*limit, lastRetry)
		}
		b.reset()
		if d := b.next(); d > firstRetry {
			t.Fatalf("seed %d: first retry after reset takes %v", seed, d)
		}
	}
}

package dataplane

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aethertunnel/aethertunnel/dataplane/path"
)

// keeperGranule is the least time between two looks at all lanes.
const keeperGranule = 5 * time.Millisecond

// keeper gives lanes the time for what they have to do by themselves: probes, challenges, reports, pings.
type keeper struct {
	wake chan struct{} // capacity 1

	mu    sync.Mutex
	lanes map[*Lane]struct{}
}

func newKeeper() keeper { return keeper{wake: make(chan struct{}, 1), lanes: make(map[*Lane]struct{})} }

func (k *keeper) add(l *Lane) {
	k.mu.Lock()
	k.lanes[l] = struct{}{}
	k.mu.Unlock()
	k.notify()
}

func (k *keeper) remove(l *Lane) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.lanes, l)
}

// notify says that a lane wants to be looked at earlier than it said.
func (k *keeper) notify() {
	select {
	case k.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// keepLanes runs the keeper until ctx ends.
func (e *Engine) keepLanes(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-e.keeper.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		e.keeper.mu.Lock()
		lanes := slices.Collect(maps.Keys(e.keeper.lanes))
		e.keeper.mu.Unlock()
		now, next := e.now(), int64(path.Never)
		for _, l := range lanes {
			next = min(next, l.path.keep(now))
		}
		if next == path.Never {
			timer.Stop()
			continue
		}
		timer.Reset(max(time.Duration(next-e.now()), keeperGranule))
	}
}

package dataplane

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/aethertunnel/aethertunnel/dataplane/path"
)

// keeperGranule is the least time between two looks of the keeper, if nothing new wants one earlier.
const keeperGranule = 5 * time.Millisecond

// keeper gives lanes the time for what they have to do by themselves: probes, challenges, reports, pings. It looks at
// those whose time has come: all others, however many they are, cost nothing.
type keeper struct {
	wake chan struct{} // capacity 1

	mu    sync.Mutex // taken under lanePath.mu, never around it
	lanes lanesByTime
	until int64 // when the keeper looks next by itself
}

// keeperEntry is the keeper's part of a lane, guarded by keeper.mu.
type keeperEntry struct {
	at    int64 // when to look at the lane
	index int   // in keeper.lanes, plus 1; 0 is not there
	over  bool  // the lane is closed
}

func newKeeper() keeper { return keeper{wake: make(chan struct{}, 1), until: path.Never} }

// schedule says when the keeper is to look at a lane, and wakes it if that is earlier than it would look by itself.
func (k *keeper) schedule(l *Lane, at int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.put(l, at)
	if at < k.until {
		k.until = at
		select {
		case k.wake <- struct{}{}:
		default: // it is about to look anyway
		}
	}
}

// again is schedule for the keeper itself, which has just looked at the lane and looks at the time before it waits.
func (k *keeper) again(l *Lane, at int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.put(l, at)
}

// put makes at the lane's time: earlier or later than before, or path.Never.
func (k *keeper) put(l *Lane, at int64) {
	e := &l.kept
	switch {
	case e.over || at == path.Never && e.index == 0:
	case at == path.Never:
		heap.Remove(&k.lanes, e.index-1)
	case e.index == 0:
		e.at = at
		heap.Push(&k.lanes, l)
	default:
		e.at = at
		heap.Fix(&k.lanes, e.index-1)
	}
}

// remove forgets a lane for good.
func (k *keeper) remove(l *Lane) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.kept.index != 0 {
		heap.Remove(&k.lanes, l.kept.index-1)
	}
	l.kept.over = true
}

// takeDue appends the lanes whose time has come to due. They are scheduled anew when they have been looked at.
func (k *keeper) takeDue(due []*Lane, nowNanos int64) []*Lane {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until = nowNanos + int64(keeperGranule) // what is later finds the keeper waiting
	for len(k.lanes) > 0 && k.lanes[0].kept.at <= nowNanos {
		l := k.lanes[0]
		heap.Pop(&k.lanes)
		due = append(due, l)
	}
	return due
}

// rest returns how long the keeper may wait, or false for as long as nothing wakes it.
func (k *keeper) rest(nowNanos int64) (time.Duration, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.lanes) == 0 {
		k.until = path.Never
		return 0, false
	}
	k.until = max(k.lanes[0].kept.at, nowNanos+int64(keeperGranule))
	return time.Duration(k.until - nowNanos), true
}

// keepLanes runs the keeper until ctx ends.
func (e *Engine) keepLanes(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due []*Lane
	for {
		select {
		case <-timer.C:
		case <-e.keeper.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := e.now()
		due = e.keeper.takeDue(due[:0], now)
		for _, l := range due {
			l.path.keep(now)
		}
		clear(due) // a closed lane is not held by the keeper
		if wait, some := e.keeper.rest(e.now()); some {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
	}
}

// lanesByTime is a heap, the lane to be looked at first in front.
type lanesByTime []*Lane

// Len is for package heap.
func (h lanesByTime) Len() int { return len(h) }

// Less is for package heap.
func (h lanesByTime) Less(i, j int) bool { return h[i].kept.at < h[j].kept.at }

// Swap is for package heap.
func (h lanesByTime) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].kept.index, h[j].kept.index = i+1, j+1
}

// Push is for package heap.
func (h *lanesByTime) Push(lane any) {
	l, ok := lane.(*Lane)
	if !ok {
		return // nobody pushes anything else
	}
	*h = append(*h, l)
	l.kept.index = len(*h)
}

// Pop is for package heap.
func (h *lanesByTime) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	l.kept.index = 0
	return l
}

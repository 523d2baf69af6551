package sched

import (
	"math/rand/v2"
	"testing"
)

// TestMarkerMarksWhatAQueueWould: told what a queue of one flow knows of each of its items, it says the same.
func TestMarkerMarksWhatAQueueWould(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		type item struct {
			pushed int64
			marked bool
		}
		pool := newPool(t, Config[item]{Mark: func(i *item) bool { i.marked = true; return true }})
		queue := pool.NewQueue()
		marker := Marker{TargetNanos: DefaultTargetNanos, IntervalNanos: DefaultIntervalNanos}
		now, marked := int64(0), 0
		const bytes = DefaultQuantumBytes
		for range 20_000 {
			now += random.Int64N(2_000_000)
			if queue.Len() < 60 && random.IntN(100) < 52 {
				queue.Push(item{pushed: now}, 1, bytes, now)
				continue
			}
			got, ok := queue.Pop(now)
			if !ok {
				continue
			}
			congested := marker.Congested(now-got.pushed, now, queue.Bytes() > bytes)
			if congested != got.marked {
				t.Fatalf("seed %d, at %d ns: the queue says %v, the marker %v", seed, now, got.marked, congested)
			}
			if congested {
				marked++
			}
			if queue.Len() == 0 {
				marker.codel.firstAboveNanos = 0 // as the queue's own when it finds nothing
			}
		}
		if marked == 0 {
			t.Fatalf("seed %d: nothing was ever congested", seed)
		}
	}
}

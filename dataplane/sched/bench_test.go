package sched

import (
	"fmt"
	"testing"
)

func BenchmarkPushPop(b *testing.B) {
	for _, flows := range []int{1, 8, 100} {
		for _, bytes := range []int{64, 1420, 65000} {
			b.Run(fmt.Sprintf("%d flows/%d bytes", flows, bytes), func(b *testing.B) {
				p := newPool(b, Config[*int]{LimitBytes: 1 << 30})
				q := p.NewQueue()
				for k := range 2 * flows {
					q.Push(nil, uint32(k%flows), bytes, 0)
				}
				b.ReportAllocs()
				b.SetBytes(int64(bytes))
				k := 0
				for b.Loop() {
					q.Push(nil, uint32(k%flows), bytes, 0)
					q.Pop(0)
					k++
				}
			})
		}
	}
}

// BenchmarkEmptyQueue is the case without load: an item goes through an empty queue.
func BenchmarkEmptyQueue(b *testing.B) {
	p := newPool(b, Config[*int]{})
	q := p.NewQueue()
	b.ReportAllocs()
	for b.Loop() {
		q.Push(nil, 1, 1420, 0)
		q.Pop(0)
	}
}

// BenchmarkFlood pushes packets of ever new flows into a full queue.
func BenchmarkFlood(b *testing.B) {
	p := newPool(b, Config[*int]{})
	q := p.NewQueue()
	b.ReportAllocs()
	hash := uint32(0)
	for b.Loop() {
		q.Push(nil, hash, 64, 0)
		hash++
	}
}

// BenchmarkManyPeers sends to 100 of 10,000 queues in turn.
func BenchmarkManyPeers(b *testing.B) {
	p := newPool(b, Config[*int]{})
	queues := make([]*Queue[*int], 10_000)
	for i := range queues {
		queues[i] = p.NewQueue()
	}
	b.ReportAllocs()
	k := 0
	for b.Loop() {
		q := queues[k%100*97]
		q.Push(nil, uint32(k%7), 65000, int64(k))
		q.Pop(int64(k))
		k++
	}
}

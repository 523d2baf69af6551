package sched

import (
	"math/rand/v2"
	"testing"
)

// plainFlow and plain are the flow scheduling of RFC 8290 section 4.2 as written there, without limits and
// without CoDel. When the whole queue is empty its flows are forgotten, as by the calls of dequeue that then
// find nothing.
type plainFlow struct {
	key    int
	items  []item
	credit int
	listed bool
}

type plain struct {
	quantum  int
	flows    map[int]*plainFlow
	new, old []*plainFlow
	count    int
}

func (q *plain) push(k item) {
	f := q.flows[k.flow]
	if f == nil {
		f = &plainFlow{key: k.flow}
		q.flows[k.flow] = f
	}
	f.items = append(f.items, k)
	if !f.listed {
		f.listed, f.credit = true, q.quantum
		q.new = append(q.new, f)
	}
	q.count++
}

func (q *plain) pop() (item, bool) {
	for {
		list, isNew := &q.new, true
		if len(q.new) == 0 {
			list, isNew = &q.old, false
		}
		if len(*list) == 0 {
			return item{}, false
		}
		f := (*list)[0]
		switch {
		case f.credit <= 0:
			f.credit += q.quantum
			*list = (*list)[1:]
			q.old = append(q.old, f)
		case len(f.items) > 0:
			k := f.items[0]
			f.items = f.items[1:]
			f.credit -= k.bytes
			if q.count--; q.count == 0 {
				q.flows, q.new, q.old = map[int]*plainFlow{}, nil, nil
			}
			return k, true
		case isNew && len(q.old) > 0:
			*list = (*list)[1:]
			q.old = append(q.old, f)
		default:
			*list = (*list)[1:]
			f.listed = false
		}
	}
}

// TestOrderEqualsRFC8290 compares what comes out first over random traffic of small packets and
// super-packets.
func TestOrderEqualsRFC8290(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 8290))
		quantum := 300 + rng.IntN(3000)
		p := newPool(t, Config[item]{
			TargetNanos: 10_000 * ms, QuantumBytes: quantum,
			LimitPackets: 1 << 20, LimitBytes: 1 << 30, PoolItems: 1 << 20,
		})
		q, ref := p.NewQueue(), &plain{quantum: quantum, flows: map[int]*plainFlow{}}
		flows, load := 1+rng.IntN(12), 30+rng.IntN(40)
		for i := range 5000 {
			if rng.IntN(100) < load {
				k := item{flow: rng.IntN(flows), sequence: i, bytes: 1 + rng.IntN(1500)}
				if k.flow%3 == 0 {
					k.bytes = 1 + rng.IntN(65535)
				}
				ref.push(k)
				q.Push(k, uint32(k.flow), k.bytes, 0)
				continue
			}
			want, wantOK := ref.pop()
			if got, ok := q.Pop(0); got != want || ok != wantOK {
				t.Fatalf("seed %d, step %d: popped %+v %v, want %+v %v", seed, i, got, ok, want, wantOK)
			}
		}
	}
}

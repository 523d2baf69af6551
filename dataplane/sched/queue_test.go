package sched

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"
	"unsafe"
)

// item is what the tests queue.
type item struct {
	queue, flow, sequence, bytes int
}

func TestConfig(t *testing.T) {
	p := newPool(t, Config[int]{})
	if p.config.TargetNanos != 5*ms || p.config.IntervalNanos != 100*ms || p.config.LimitPackets != DefaultLimitPackets {
		t.Errorf("%+v", p.config)
	}
	for _, c := range []Config[int]{
		{TargetNanos: -1},
		{IntervalNanos: 11_000 * ms},
		{QuantumBytes: -1},
		{QuantumBytes: 2 << 20},
		{LimitPackets: -1},
		{PoolItems: -1},
		{PoolFlows: 2 << 30},
	} {
		if _, err := NewPool(c); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for r := range ReasonsCount {
		if r.String() == "" {
			t.Error(r)
		}
	}
}

// TestFairness: flows with packets of very different lengths get the same bytes.
func TestFairness(t *testing.T) {
	sizes := []int{64, 300, 1514, 65000, 65000, 9000}
	p := newPool(t, Config[item]{LimitBytes: 1 << 30, LimitPackets: 1 << 20, PoolItems: 1 << 20, TargetNanos: 10_000 * ms})
	q := p.NewQueue()
	fill := func() {
		for f, n := range sizes {
			for b := 0; b < 4_000_000; b += n {
				q.Push(item{flow: f, bytes: n}, uint32(f), n, 0)
			}
		}
	}
	fill()
	served := make([]int, len(sizes))
	for total := 0; total < 12_000_000; {
		k, ok := q.Pop(0)
		if !ok {
			t.Fatal("empty")
		}
		served[k.flow] += k.bytes
		total += k.bytes
		low, high := served[0], served[0]
		for _, s := range served {
			low, high = min(low, s), max(high, s)
		}
		if high-low > 65000+2*mtu {
			t.Fatalf("after %d bytes: %v", total, served)
		}
	}
}

// TestSparseFlowsGoFirst: a packet of a flow that is not backlogged overtakes everything.
func TestSparseFlowsGoFirst(t *testing.T) {
	p := newPool(t, Config[item]{})
	q := p.NewQueue()
	for f := range 5 {
		for range 20 {
			q.Push(item{flow: f}, uint32(f), 1500, 0)
		}
	}
	for range 10 {
		q.Pop(0)
	}
	for k := range 30 {
		q.Push(item{flow: 100, sequence: k}, 100, 100, int64(k))
		got, ok := q.Pop(int64(k))
		if !ok || got.flow != 100 || got.sequence != k {
			t.Fatalf("packet %d of the sparse flow waited for %+v", k, got)
		}
		for range 6 { // the others get their turns
			if got, _ := q.Pop(int64(k)); got.flow == 100 {
				t.Fatal("twice")
			}
		}
		for f := range 5 {
			q.Push(item{flow: f}, uint32(f), 1500, int64(k))
			q.Push(item{flow: f}, uint32(f), 1500, int64(k))
		}
	}
}

// TestNewFlowsCanNotStarveOthers: a flow that comes back each time it has been served alternates with the old
// one (RFC 8290 section 4.2).
func TestNewFlowsCanNotStarveOthers(t *testing.T) {
	p := newPool(t, Config[item]{})
	q := p.NewQueue()
	for range 100 {
		q.Push(item{flow: 1}, 1, 1500, 0)
	}
	counts := map[int]int{}
	for range 100 {
		q.Push(item{flow: 2}, 2, 1500, 0)
		k, _ := q.Pop(0)
		counts[k.flow]++
	}
	if counts[1] < 40 {
		t.Errorf("served %v", counts)
	}
}

func TestLimitDropsTheFattest(t *testing.T) {
	var dropped []item
	p := newPool(t, Config[item]{
		LimitPackets: 100, LimitBytes: 200_000,
		Drop: func(k item, r Reason) {
			if r != DropLimit {
				t.Errorf("reason %s", r)
			}
			dropped = append(dropped, k)
		},
	})
	q := p.NewQueue()
	for k := range 20 {
		q.Push(item{flow: 1, sequence: k}, 1, 500, 0)
	}
	for k := range 200 {
		q.Push(item{flow: 2, sequence: k}, 2, 1500, 0)
	}
	if q.Len() > 100 || len(dropped) != 120 {
		t.Fatalf("%d queued, %d dropped", q.Len(), len(dropped))
	}
	for k, d := range dropped {
		if d.flow != 2 || d.sequence != k {
			t.Fatalf("drop %d was %+v", k, d)
		}
	}
	q.Push(item{flow: 3}, 3, 65000, 0) // few items, many bytes
	q.Push(item{flow: 3}, 3, 65000, 0)
	if q.Bytes() > 200_000 || q.Stats().Dropped[DropLimit] != uint64(len(dropped)) {
		t.Errorf("%d bytes, %+v", q.Bytes(), q.Stats())
	}
	q.Push(item{flow: 4}, 4, 300_000, 0)
	if q.Bytes() > 200_000 {
		t.Errorf("%d bytes", q.Bytes())
	}
}

func TestItemOverTheLimitLeavesNothingBehind(t *testing.T) {
	p := newPool(t, Config[item]{LimitBytes: 1000, PoolFlows: 1})
	for range 100 {
		q := p.NewQueue()
		q.Push(item{}, 5, 2000, 0)
		if _, ok := q.Pop(0); ok || q.Len() != 0 || q.flows != 0 || p.active != nil || p.Len() != 0 {
			t.Fatal("something is left")
		}
	}
}

// TestPoolIsFair: when all items of the pool are in use the queue with the most bytes pays, whoever pushes.
func TestPoolIsFair(t *testing.T) {
	reasons := map[Reason]int{}
	p := newPool(t, Config[item]{
		PoolItems: 500,
		Drop:      func(k item, r Reason) { reasons[r]++; reasons[100+Reason(k.queue)]++ },
	})
	hog, other := p.NewQueue(), p.NewQueue()
	for k := range 500 {
		hog.Push(item{queue: 1}, uint32(k%3), 1500, 0)
	}
	for k := range 100 {
		other.Push(item{queue: 2}, uint32(k), 1500, 0)
	}
	if other.Len() != 100 || reasons[DropPool] < 100 || reasons[101] != reasons[DropPool] || p.Len() > 500 {
		t.Errorf("hog %d, other %d, drops %v", hog.Len(), other.Len(), reasons)
	}
}

// model checks a set of queues against what was put into them.
type model struct {
	tb      testing.TB
	pool    *Pool[item]
	queues  []*Queue[item]
	waiting map[[2]int][]item // by queue and flow
	count   int
	now     int64
	next    int
}

func newModel(tb testing.TB, queues int, c Config[item]) *model {
	tb.Helper()
	m := &model{tb: tb, waiting: map[[2]int][]item{}, now: 1}
	c.Drop = func(k item, _ Reason) { m.gone(k) }
	m.pool = newPool(tb, c)
	for range queues {
		m.queues = append(m.queues, m.pool.NewQueue())
	}
	return m
}

// gone takes an item out, which must be the oldest of its flow.
func (m *model) gone(k item) {
	m.tb.Helper()
	key := [2]int{k.queue, k.flow}
	w := m.waiting[key]
	if len(w) == 0 || w[0] != k {
		m.tb.Fatalf("%+v left before %+v", k, w)
	}
	m.waiting[key] = w[1:]
	m.count--
}

func (m *model) push(queue, flow, bytes int) {
	m.next++
	k := item{queue, flow, m.next, bytes}
	key := [2]int{queue, flow}
	m.waiting[key] = append(m.waiting[key], k)
	m.count++
	m.queues[queue].Push(k, uint32(flow), bytes, m.now)
}

func (m *model) pop(queue int) {
	before := m.queues[queue].Len()
	k, ok := m.queues[queue].Pop(m.now)
	if ok {
		m.gone(k)
	} else if before > 0 && m.queues[queue].Len() > 0 {
		m.tb.Fatal("nothing came out of a queue that is not empty")
	}
}

// check compares sizes and looks for lost flows.
func (m *model) check() {
	m.tb.Helper()
	count, bytes := make([]int, len(m.queues)), make([]int, len(m.queues))
	for key, w := range m.waiting {
		for _, k := range w {
			count[key[0]]++
			bytes[key[0]] += k.bytes
		}
	}
	flows := 0
	for i, q := range m.queues {
		if q.Len() != count[i] || q.Bytes() != bytes[i] {
			m.tb.Fatalf("queue %d: %d items, %d bytes; want %d, %d", i, q.Len(), q.Bytes(), count[i], bytes[i])
		}
		if q.Len() == 0 && q.flows != 0 {
			m.tb.Fatalf("empty queue keeps %d flows", q.flows)
		}
		flows += q.flows
		if q.shared.place != nowhere {
			flows--
		}
	}
	free, idle, active := 0, 0, 0
	for f := m.pool.freeFlows; f != nil; f = f.next {
		free++
	}
	for f := m.pool.idleHead; f != nil; f = f.next {
		idle++
	}
	for q := m.pool.active; q != nil; q = q.next {
		active++
		if q.Len() == 0 {
			m.tb.Fatal("empty queue is active")
		}
	}
	if m.pool.Len() != m.count || flows+free+idle != m.pool.allFlows || m.pool.allFlows > m.pool.config.PoolFlows {
		m.tb.Fatalf("pool has %d items, want %d; %d flows in queues, %d free, %d idle of %d",
			m.pool.Len(), m.count, flows, free, idle, m.pool.allFlows)
	}
}

// TestOrderAndAccounts runs random operations in pools that are too small for them.
func TestOrderAndAccounts(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 3))
		m := newModel(t, 1+rng.IntN(20), Config[item]{
			LimitPackets: 1 + rng.IntN(200), LimitBytes: 1000 + rng.IntN(100_000), QueueFlows: 1 + rng.IntN(20),
			PoolItems: 1 + rng.IntN(400), PoolFlows: 1 + rng.IntN(80),
		})
		flows := 1 + rng.IntN(60)
		for i := range 20_000 {
			queue := rng.IntN(len(m.queues))
			switch r := rng.IntN(100); {
			case r < 45+int(seed%10):
				m.push(queue, rng.IntN(flows), 1+rng.IntN(3000))
			case r < 99:
				m.pop(queue)
			default:
				m.queues[queue].Clear(m.now)
			}
			m.now += rng.Int64N(3 * ms)
			if i%500 == 0 {
				m.check()
			}
		}
		for _, q := range m.queues {
			for q.Len() > 0 {
				k, ok := q.Pop(m.now)
				if ok {
					m.gone(k)
				}
			}
		}
		m.check()
		if m.count != 0 {
			t.Fatalf("%d items lost", m.count)
		}
	}
}

func FuzzQueue(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), byte(3), byte(2))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 1, 1, 1, 200, 255, 255, 3, 9}, byte(200), byte(200))
	f.Fuzz(func(t *testing.T, ops []byte, limit, memory byte) {
		m := newModel(t, 3, Config[item]{
			LimitPackets: 1 + int(limit), LimitBytes: 1 + int(limit)*1000, QueueFlows: 1 + int(limit)/4,
			PoolItems: 1 + int(memory), PoolFlows: 1 + int(memory)/8,
		})
		for len(ops) >= 2 {
			queue, flow := int(ops[0]>>2)%3, int(ops[1])%16
			switch ops[0] & 3 {
			case 0, 1:
				m.push(queue, flow, 1+int(ops[1])<<(ops[0]>>6))
			case 2:
				m.pop(queue)
			case 3:
				if m.now += int64(ops[1]) * ms; ops[1] == 255 {
					m.queues[queue].Clear(m.now)
				}
			}
			ops = ops[2:]
		}
		m.check()
	})
}

// TestIdleFlowsKeepCoDelState: a flow that empties its queue now and then is dropped from as before it did,
// unless its memory was needed.
func TestIdleFlowsKeepCoDelState(t *testing.T) {
	for poolFlows, want := range map[int]bool{8: true, 1: false} {
		p := newPool(t, Config[item]{PoolFlows: poolFlows})
		q := p.NewQueue()
		q.Push(item{}, 7, 1000, 0)
		p.lookup(q.id, 7).codel.count = 42
		q.Pop(0)
		q.Push(item{}, 8, 1000, 1)
		q.Pop(1)
		q.Push(item{}, 7, 1000, 2)
		if got := p.lookup(q.id, 7).codel.count == 42; got != want {
			t.Errorf("%d flows: kept %v", poolFlows, got)
		}
	}
}

func TestOldIdleFlowsAreReusedFirst(t *testing.T) {
	p := newPool(t, Config[item]{})
	q := p.NewQueue()
	for k := range 10 * flowBlock {
		q.Push(item{}, uint32(k), 100, int64(k)*2000*ms)
		q.Pop(int64(k) * 2000 * ms)
	}
	if p.allFlows > flowBlock {
		t.Errorf("%d flows allocated for one at a time", p.allFlows)
	}
}

func TestEmptyQueuesAreSmall(t *testing.T) {
	if n := unsafe.Sizeof(Queue[*int]{}); n > 512 {
		t.Errorf("a queue has %d bytes", n)
	}
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p := newPool(t, Config[int]{})
	queues := make([]*Queue[int], 10_000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range queues {
		queues[i] = p.NewQueue()
		for k := range 20 {
			queues[i].Push(0, uint32(k), 1500, int64(i)*2000*ms)
		}
		for queues[i].Len() > 0 {
			queues[i].Pop(int64(i) * 2000 * ms)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (after.HeapAlloc - before.HeapAlloc) / uint64(len(queues)); each > 1024 {
		t.Errorf("%d bytes for each queue that was used", each)
	}
	runtime.KeepAlive(queues)
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p := newPool(t, Config[item]{LimitPackets: 300, PoolFlows: 100})
	queues := []*Queue[item]{p.NewQueue(), p.NewQueue(), p.NewQueue()}
	rng := rand.New(rand.NewPCG(1, 1))
	now := int64(0)
	run := func() {
		for range 3000 {
			q := queues[rng.IntN(3)]
			if rng.IntN(2) == 0 {
				q.Push(item{}, rng.Uint32N(200), 1500, now)
			} else {
				q.Pop(now)
			}
			now += ms / 2
		}
	}
	for range 10 {
		run()
	}
	if n := testing.AllocsPerRun(20, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

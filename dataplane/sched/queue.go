package sched

// Bounds of what is dropped at once where a limit is exceeded. The search for the flow with the most bytes
// looks at all flows of a queue, so where there are many more is dropped per search.
const (
	flowsPerDrop = 16
	maxBatch     = 64
)

// Stats are the counters of a queue since it was made.
type Stats struct {
	LastSojournNanos int64                // how long the item of the last Pop had waited
	Marked           uint64               // items that Config.Mark marked
	DroppedBytes     uint64               // of all dropped items
	Dropped          [ReasonsCount]uint64 // items, by reason
}

// Queue is an FQ-CoDel queue. It is made by [Pool.NewQueue].
type Queue[T any] struct {
	pool       *Pool[T]
	prev, next *Queue[T] // in the pool's list of queues that have items
	id         uint64
	newFlows   flows[T]
	oldFlows   flows[T]
	packets    int
	bytes      int
	flows      int     // that are in a list
	shared     flow[T] // for all flows beyond the bounds
	stats      Stats
}

// NewQueue returns an empty queue. A queue that is empty needs no closing; for another Clear gives the items'
// memory back to the pool.
func (p *Pool[T]) NewQueue() *Queue[T] {
	p.lastID++
	return &Queue[T]{pool: p, id: p.lastID}
}

// Len is the number of items in the queue.
func (q *Queue[T]) Len() int { return q.packets }

// Bytes is the length of all items in the queue.
func (q *Queue[T]) Bytes() int { return q.bytes }

// Stats returns the queue's counters.
func (q *Queue[T]) Stats() Stats { return q.stats }

// Push appends an item to the flow with this hash; bytes is its length, counted as at least 1. Where a limit
// of the queue is exceeded then, the oldest items of its flow with the most bytes are dropped, which may be
// this one. Where the pool is full, room is made in the same way in the queue with the most bytes.
func (q *Queue[T]) Push(item T, hash uint32, bytes int, nowNanos int64) {
	n := q.pool.takeNode()
	for n == nil {
		q.pool.makeRoom(nowNanos)
		n = q.pool.takeNode()
	}
	bytes = max(bytes, 1)
	n.item, n.bytes, n.pushed = item, bytes, nowNanos
	f := q.flowOf(hash, nowNanos)
	if f.tail == nil {
		f.head = n
	} else {
		f.tail.next = n
	}
	f.tail = n
	f.packets++
	f.bytes += bytes
	f.longest = max(f.longest, bytes)
	if q.packets == 0 {
		q.pool.activate(q)
	}
	q.packets++
	q.bytes += bytes
	if f.place == nowhere {
		f.place, f.credit = inNew, q.pool.config.QuantumBytes
		q.flows++
		q.newFlows.push(f)
	}
	for q.packets > q.pool.config.LimitPackets || q.bytes > q.pool.config.LimitBytes {
		q.shed(DropLimit, nowNanos)
	}
}

// flowOf finds or makes the flow of an item.
func (q *Queue[T]) flowOf(hash uint32, nowNanos int64) *flow[T] {
	if f := q.pool.lookup(q.id, hash); f != nil {
		if f.place == nowhere {
			q.pool.unidle(f)
		}
		return f
	}
	// While the shared flow has items, some may be of this flow, and they must not be overtaken.
	if q.flows < q.pool.config.QueueFlows && q.shared.packets == 0 {
		if f := q.pool.takeFlow(q.id, hash, nowNanos); f != nil {
			return f
		}
	}
	return &q.shared
}

// Pop returns the next item to send, or false if the queue is empty. Items that CoDel drops on the way go to
// Config.Drop.
func (q *Queue[T]) Pop(nowNanos int64) (item T, ok bool) {
	for {
		list := &q.newFlows
		if list.head == nil {
			list = &q.oldFlows
		}
		f := list.head
		if f == nil {
			return item, false
		}
		if f.credit <= 0 {
			q.refill(list, f)
			continue
		}
		n := q.admitted(f, nowNanos)
		if n == nil {
			q.leave(list, nowNanos)
			continue
		}
		f.credit -= n.bytes
		q.stats.LastSojournNanos = nowNanos - n.pushed
		item = n.item
		q.pool.releaseNode(n)
		if q.packets == 0 {
			q.retireAll(nowNanos)
		}
		return item, true
	}
}

// refill ends the turn of the list's first flow, which used up its credit.
func (q *Queue[T]) refill(list *flows[T], f *flow[T]) {
	quantum := q.pool.config.QuantumBytes
	f.credit += quantum
	if q.flows == 1 && f.credit <= 0 {
		// It would get all the turns anyway, and a super-packet is worth many.
		f.credit += -f.credit/quantum*quantum + quantum
	}
	list.pop()
	f.place = inOld
	q.oldFlows.push(f)
}

// leave takes the list's first flow, which is empty, out of it. A new flow has to wait for its turn among the
// old ones first, or it could come back as a new one at once (RFC 8290 section 4.2).
func (q *Queue[T]) leave(list *flows[T], nowNanos int64) {
	f := list.pop()
	if f.place == inNew && q.oldFlows.head != nil {
		f.place = inOld
		q.oldFlows.push(f)
		return
	}
	q.retire(f, nowNanos)
}

// retire gives a flow that is in no list and empty back to the pool.
func (q *Queue[T]) retire(f *flow[T], nowNanos int64) {
	q.flows--
	f.place, f.longest = nowhere, 0
	if f != &q.shared {
		q.pool.idle(f, nowNanos)
	}
}

// retireAll does what Pop would do on the empty queue, which nobody may ask again.
func (q *Queue[T]) retireAll(nowNanos int64) {
	for q.newFlows.head != nil {
		q.retire(q.newFlows.pop(), nowNanos)
	}
	for q.oldFlows.head != nil {
		q.retire(q.oldFlows.pop(), nowNanos)
	}
}

// take unlinks the oldest item of a flow. mayDrop is CoDel's opinion of it.
func (q *Queue[T]) take(f *flow[T], nowNanos int64) (n *node[T], mayDrop bool) {
	config := &q.pool.config
	n = q.unlink(f)
	if n == nil {
		f.codel.firstAboveNanos = 0
		return nil, false
	}
	// A queue with less than a packet behind this one is no standing queue, however long a super-packet took.
	standing := f.bytes > max(config.QuantumBytes, f.longest)
	return n, f.codel.above(nowNanos-n.pushed, nowNanos, config.TargetNanos, config.IntervalNanos, standing)
}

// unlink takes the oldest item out of a flow, or returns nil.
func (q *Queue[T]) unlink(f *flow[T]) *node[T] {
	n := f.head
	if n == nil {
		return nil
	}
	f.head, n.next = n.next, nil
	if f.head == nil {
		f.tail = nil
	}
	f.packets--
	f.bytes -= n.bytes
	q.packets--
	q.bytes -= n.bytes
	if q.packets == 0 {
		q.pool.deactivate(q)
	}
	return n
}

// admitted returns the next item of a flow that CoDel lets pass, or nil (RFC 8289 section 5.5).
func (q *Queue[T]) admitted(f *flow[T], nowNanos int64) *node[T] {
	interval, c := q.pool.config.IntervalNanos, &f.codel
	n, mayDrop := q.take(f, nowNanos)
	if !c.dropping {
		if mayDrop {
			if !q.mark(n) {
				q.drop(n, DropCoDel)
				n, _ = q.take(f, nowNanos)
			}
			c.begin(nowNanos, interval)
		}
		return n
	}
	c.dropping = mayDrop
	for c.dropping && nowNanos >= c.dropNextNanos {
		c.count++
		if q.mark(n) {
			c.dropNextNanos = c.law(c.dropNextNanos, interval)
			return n
		}
		q.drop(n, DropCoDel)
		if n, c.dropping = q.take(f, nowNanos); c.dropping {
			c.dropNextNanos = c.law(c.dropNextNanos, interval)
		}
	}
	return n
}

func (q *Queue[T]) mark(n *node[T]) bool {
	if q.pool.config.Mark == nil || !q.pool.config.Mark(&n.item) {
		return false
	}
	q.stats.Marked++
	return true
}

// drop gives away an unlinked item.
func (q *Queue[T]) drop(n *node[T], reason Reason) {
	q.stats.Dropped[reason]++
	q.stats.DroppedBytes += uint64(n.bytes)
	item := n.item
	q.pool.releaseNode(n)
	if q.pool.config.Drop != nil {
		q.pool.config.Drop(item, reason)
	}
}

// shed drops at least one item, of the flow with the most bytes, down to half of them, and, where a batch
// asks for more, of others that have more than that.
func (q *Queue[T]) shed(reason Reason, nowNanos int64) {
	var most *flow[T]
	for f := q.newFlows.head; f != nil; f = f.next {
		if most == nil || f.bytes > most.bytes {
			most = f
		}
	}
	for f := q.oldFlows.head; f != nil; f = f.next {
		if most == nil || f.bytes > most.bytes {
			most = f
		}
	}
	batch, half := min(1+q.flows/flowsPerDrop, maxBatch), most.bytes/2
	batch = q.dropOldest(most, half, batch, reason)
	for f := q.newFlows.head; f != nil && batch > 0; f = f.next {
		batch = q.dropOldest(f, half, batch, reason)
	}
	for f := q.oldFlows.head; f != nil && batch > 0; f = f.next {
		batch = q.dropOldest(f, half, batch, reason)
	}
	if q.packets == 0 {
		q.retireAll(nowNanos)
	}
}

// dropOldest drops items of a flow until it has no more bytes than given or the batch is used up, and returns
// what is left of the batch.
func (q *Queue[T]) dropOldest(f *flow[T], bytes, batch int, reason Reason) int {
	for batch > 0 && f.bytes > bytes {
		q.drop(q.unlink(f), reason)
		batch--
	}
	return batch
}

// Clear drops all items, with [DropCleared].
func (q *Queue[T]) Clear(nowNanos int64) {
	for _, list := range []*flows[T]{&q.newFlows, &q.oldFlows} {
		for f := list.head; f != nil; f = f.next {
			q.dropOldest(f, 0, q.packets, DropCleared)
		}
	}
	q.retireAll(nowNanos)
}

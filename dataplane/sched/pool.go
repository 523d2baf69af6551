package sched

import "math/bits"

// Blocks of nodes and flows are allocated when they are first needed.
const (
	nodeBlock = 256
	flowBlock = 64
)

// node is an item in a flow.
type node[T any] struct {
	item   T
	next   *node[T]
	pushed int64 // nanoseconds
	bytes  int
}

// place is where a flow is.
type place uint8

const (
	nowhere place = iota // free or idle
	inNew                // in its queue's list of new flows
	inOld                // in its queue's list of old flows
)

// flow is the state of one flow of one queue. It is in at most one list: its queue's new or old flows, the
// pool's idle or free flows.
type flow[T any] struct {
	head, tail *node[T]
	next, prev *flow[T] // in the list; prev only counts in the idle list
	chain      *flow[T] // in the hash table
	queueID    uint64   // with hash the key in the hash table
	hash       uint32
	credit     int // bytes
	bytes      int
	packets    int
	longest    int // bytes of the longest item since the flow was last idle
	idleNanos  int64
	codel      codel
	place      place
}

// flows is a list of flows, first in, first out.
type flows[T any] struct{ head, tail *flow[T] }

func (l *flows[T]) push(f *flow[T]) {
	f.next = nil
	if l.head == nil {
		l.head = f
	} else {
		l.tail.next = f
	}
	l.tail = f
}

func (l *flows[T]) pop() *flow[T] {
	f := l.head
	l.head = f.next
	f.next = nil
	return f
}

// Pool is the memory of queues that one goroutine serves.
type Pool[T any] struct {
	config Config[T]

	freeNodes *node[T]
	nodes     int // in use

	allNodes, allFlows int // allocated
	freeFlows          *flow[T]

	// Flows that are empty but still known, the longest idle first.
	idleHead, idleTail *flow[T]

	active *Queue[T] // the queues that have items

	table  []*flow[T] // heads of chains; a power of two
	lastID uint64     // of the queue made last
}

// NewPool returns a pool for the queues of one goroutine. Errors are of the kind ErrConfig.
func NewPool[T any](config Config[T]) (*Pool[T], error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	return &Pool[T]{config: config, table: make([]*flow[T], flowBlock)}, nil
}

// Len is the number of items in all queues of the pool.
func (p *Pool[T]) Len() int { return p.nodes }

// takeNode returns a node, or nil if all are in use.
func (p *Pool[T]) takeNode() *node[T] {
	if p.nodes >= p.config.PoolItems {
		return nil
	}
	if p.freeNodes == nil {
		block := make([]node[T], min(nodeBlock, p.config.PoolItems-p.allNodes))
		p.allNodes += len(block)
		for i := range block {
			block[i].next, p.freeNodes = p.freeNodes, &block[i]
		}
	}
	n := p.freeNodes
	p.freeNodes, n.next = n.next, nil
	p.nodes++
	return n
}

func (p *Pool[T]) releaseNode(n *node[T]) {
	var none T
	n.item, n.next, p.freeNodes = none, p.freeNodes, n
	p.nodes--
}

// slot is where the chain of a key begins.
func (p *Pool[T]) slot(queueID uint64, hash uint32) **flow[T] {
	high, low := bits.Mul64(uint64(hash)^0x9e3779b97f4a7c15, queueID*0xd1b54a32d192ed03|1)
	return &p.table[(high^low)&uint64(len(p.table)-1)]
}

// lookup returns the flow of a queue, or nil.
func (p *Pool[T]) lookup(queueID uint64, hash uint32) *flow[T] {
	for f := *p.slot(queueID, hash); f != nil; f = f.chain {
		if f.hash == hash && f.queueID == queueID {
			return f
		}
	}
	return nil
}

// takeFlow returns a flow for the key that the table does not have, or nil if all are in use.
func (p *Pool[T]) takeFlow(queueID uint64, hash uint32, nowNanos int64) *flow[T] {
	f := p.freeFlows
	switch {
	case f != nil:
		p.freeFlows = f.next
	case p.idleHead != nil && (p.allFlows >= p.config.PoolFlows ||
		nowNanos-p.idleHead.idleNanos > memoryIntervals*p.config.IntervalNanos):
		// Earlier than that its CoDel state still counts, so new memory is taken while there is some.
		f = p.idleHead
		p.unidle(f)
		p.unchain(f)
	case p.allFlows < p.config.PoolFlows:
		p.growFlows()
		f = p.freeFlows
		p.freeFlows = f.next
	default:
		return nil
	}
	*f = flow[T]{queueID: queueID, hash: hash}
	slot := p.slot(queueID, hash)
	f.chain, *slot = *slot, f
	return f
}

// growFlows allocates a block, and a larger hash table when there are more flows than chains.
func (p *Pool[T]) growFlows() {
	block := make([]flow[T], min(flowBlock, p.config.PoolFlows-p.allFlows))
	p.allFlows += len(block)
	for i := range block {
		block[i].next, p.freeFlows = p.freeFlows, &block[i]
	}
	if p.allFlows <= len(p.table) {
		return
	}
	before := p.table
	p.table = make([]*flow[T], 2*len(before))
	for _, f := range before {
		for f != nil {
			slot, chain := p.slot(f.queueID, f.hash), f.chain
			f.chain, *slot = *slot, f
			f = chain
		}
	}
}

func (p *Pool[T]) unchain(f *flow[T]) {
	for at := p.slot(f.queueID, f.hash); *at != nil; at = &(*at).chain {
		if *at == f {
			*at = f.chain
			return
		}
	}
}

// idle keeps an empty flow until its memory is needed.
func (p *Pool[T]) idle(f *flow[T], nowNanos int64) {
	f.idleNanos = nowNanos
	f.next, f.prev = nil, p.idleTail
	if p.idleTail == nil {
		p.idleHead = f
	} else {
		p.idleTail.next = f
	}
	p.idleTail = f
}

// unidle takes a flow out of the idle list.
func (p *Pool[T]) unidle(f *flow[T]) {
	if f.prev == nil {
		p.idleHead = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		p.idleTail = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.next, f.prev = nil, nil
}

// activate enters a queue that has items now.
func (p *Pool[T]) activate(q *Queue[T]) {
	q.prev, q.next = nil, p.active
	if p.active != nil {
		p.active.prev = q
	}
	p.active = q
}

func (p *Pool[T]) deactivate(q *Queue[T]) {
	if q.prev == nil {
		p.active = q.next
	} else {
		q.prev.next = q.next
	}
	if q.next != nil {
		q.next.prev = q.prev
	}
	q.prev, q.next = nil, nil
}

// makeRoom drops items of the queue with the most bytes.
func (p *Pool[T]) makeRoom(nowNanos int64) {
	most := p.active
	for q := p.active; q != nil; q = q.next {
		if q.bytes > most.bytes {
			most = q
		}
	}
	most.shed(DropPool, nowNanos)
}

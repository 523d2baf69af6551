package netsim

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"net/netip"
)

// Never is the time of an event that does not happen.
const Never int64 = math.MaxInt64

// maxEvents bounds what waits to happen: a test that makes more has gone wrong.
const maxEvents = 1 << 20

// Config says what a network is made of.
type Config struct {
	// Seed decides everything that is left to chance.
	Seed uint64
	// Sent is told of every datagram that a host's interface has taken, before anything happens to it, and Arrived of
	// every one that has come to a socket, right before the socket's receiver. Both may be nil. They must not change
	// the datagram.
	Sent, Arrived func(h *Host, d *Datagram)
}

// Datagram is a UDP datagram under way. Copies of one datagram have the same ID and the same Payload.
type Datagram struct {
	// ID numbers the datagrams that were sent.
	ID uint64
	// From and To are its addresses as they are at this point of its way: NATs change them.
	From, To netip.AddrPort
	// ECN is the two bits of RFC 3168 section 5.
	ECN uint8
	// Payload is not to be changed by who receives it: copy it first.
	Payload []byte
	// Corrupt says that bits were flipped on the way.
	Corrupt bool
}

// ipBytes is the length of the IP packet that carries the datagram.
func (d *Datagram) ipBytes() int { return len(d.Payload) + HeaderBytes(d.To.Addr()) }

// HeaderBytes is the length of the IP and UDP headers of a datagram to an address: what a link's MTU has to carry besides
// the payload.
func HeaderBytes(to netip.Addr) int {
	const udp, ipv4, ipv6 = 8, 20, 40
	if to.Is4() {
		return ipv4 + udp
	}
	return ipv6 + udp
}

// Network is hosts, links and NATs, and what will happen to them. Make it with [New].
type Network struct {
	cfg    Config
	rng    *rand.Rand
	now    int64
	events events
	order  uint64 // of events made
	sent   uint64 // datagrams
	hosts  map[netip.Addr]*Host
	nats   map[netip.Addr]*NAT
	stats  Stats
}

// Stats counts what has become of datagrams; copies that a link has made count too.
type Stats struct {
	Sent, Arrived uint64
	// Lost is what links have lost by chance, Dead what came to a link that was dead, TooLong what was longer than its MTU.
	Lost, Dead, TooLong uint64
	// Duplicated and Corrupted are what links have done by chance.
	Duplicated, Corrupted uint64
	// Filtered is what a NAT did not let in, Unreachable what went to an address or a port that nobody has.
	Filtered, Unreachable uint64
}

// New makes a network without hosts, at time 0.
func New(cfg Config) *Network {
	const stream = 0x6e657473696d // any constant: other users of the seed have their own
	return &Network{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, stream)),
		hosts: make(map[netip.Addr]*Host), nats: make(map[netip.Addr]*NAT),
	}
}

// Nanos is the time, in nanoseconds since the network was made.
func (n *Network) Nanos() int64 { return n.now }

// Stats returns the counters.
func (n *Network) Stats() Stats { return n.stats }

// After has do called when so much time has passed. Of what happens at the same time, what was asked for first comes first.
func (n *Network) After(delayNanos int64, do func()) {
	if len(n.events) >= maxEvents {
		panic("netsim: too many events are waiting")
	}
	n.order++
	heap.Push(&n.events, event{at: n.now + max(delayNanos, 0), order: n.order, do: do})
}

// Next returns when something happens next, or [Never].
func (n *Network) Next() int64 {
	if len(n.events) == 0 {
		return Never
	}
	return n.events[0].at
}

// Step goes to the next event and has it happen. It reports whether there was one.
func (n *Network) Step() bool {
	if len(n.events) == 0 {
		return false
	}
	e, _ := heap.Pop(&n.events).(event)
	n.now = e.at
	e.do()
	return true
}

// Run has everything happen up to a time, at which it ends.
func (n *Network) Run(untilNanos int64) {
	for n.Next() <= untilNanos {
		n.Step()
	}
	n.now = max(n.now, untilNanos)
}

// Advance moves the time forward, at most to the next event. It does not go back.
func (n *Network) Advance(nanos int64) { n.now = max(n.now, min(nanos, n.Next())) }

// chance reports true with a probability. It draws nothing for what is certain.
func (n *Network) chance(ratio float64) bool { return ratio > 0 && n.rng.Float64() < ratio }

// upTo draws from 0 to limit, both included.
func (n *Network) upTo(limit int64) int64 {
	if limit <= 0 {
		return 0
	}
	return n.rng.Int64N(limit + 1)
}

// event is something that happens at a time.
type event struct {
	at    int64
	order uint64
	do    func()
}

// events is a heap, the next one in front.
type events []event

// Len is for package heap.
func (h events) Len() int { return len(h) }

// Less is for package heap.
func (h events) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}

// Swap is for package heap.
func (h events) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is for package heap.
func (h *events) Push(x any) {
	if e, ok := x.(event); ok { // nobody pushes anything else
		*h = append(*h, e)
	}
}

// Pop is for package heap.
func (h *events) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = event{}
	*h = (*h)[:last]
	return e
}

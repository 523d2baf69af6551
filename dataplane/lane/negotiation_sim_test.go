package lane

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

var (
	simSeed  = flag.Uint64("laneseed", 0, "run only the schedule with this seed")
	simCount = flag.Int("laneschedules", 300, "how many schedules to run")
)

const (
	second      = int64(time.Second)
	maxCapsule  = 2 * second         // longest delay of a capsule
	maxUDPDelay = 500 * second / 1e3 // longest delay of a packet
)

// TestSimulation runs seeded schedules of loss, duplication, breaking sessions, silence and changes of path against two
// machines in virtual time.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		runSchedule(t, *simSeed)
		return
	}
	count := *simCount
	if testing.Short() {
		count = min(count, 40)
	}
	for seed := range uint64(count) {
		runSchedule(t, seed+1)
		if t.Failed() {
			return
		}
	}
}

func runSchedule(t *testing.T, seed uint64) {
	t.Helper()
	w := newWorld(seed)
	defer func() {
		if r := recover(); r != nil {
			w.failf("panic: %v", r)
		}
		if w.fault == "" {
			return
		}
		from := max(len(w.trace)-60, 0)
		for _, line := range w.trace[from:] {
			t.Log(line)
		}
		t.Errorf("schedule with seed %d (-laneseed=%d): %s", seed, seed, w.fault)
	}()
	w.run()
}

// world is two nodes, their sessions and the packets between them.
type world struct {
	rng    *rand.Rand
	now    int64
	trace  []string
	fault  string
	nodes  [2]*node
	links  []*link
	events []delivery
	order  int
	calm   bool
	nonces map[[aead.NonceBytes + 8]byte]bool
	issued map[ConnectionID]bool
	serial uint64
	// style of the schedule
	loss, duplicates, breaks float64
	idle                     bool
	bothDial                 bool
	packets                  int
}

// delivery happens at a time.
type delivery struct {
	at    int64
	order int
	do    func()
}

// link is one HTTP/3 session: a Session at each node and the messages under way.
type link struct {
	secret [32]byte
	ends   [2]*Session
	up     [2]bool
	lastAt [2]int64 // in order, per receiver
	old    [][]byte // what was sent, for replays into later sessions
}

func newWorld(seed uint64) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), now: 1 << 40, nonces: map[[aead.NonceBytes + 8]byte]bool{},
		issued: map[ConnectionID]bool{},
	}
	for i := range w.nodes {
		w.nodes[i] = &node{w: w, index: i, id: NodeID{byte(i + 1)}, skew: w.rng.Int64N(1 << 50)}
	}
	w.loss = []float64{0, 0.01, 0.3}[w.rng.IntN(3)]
	w.duplicates = []float64{0, 0.2}[w.rng.IntN(2)]
	w.breaks = []float64{0, 0.005, 0.05, 0.3}[w.rng.IntN(4)] // per second
	w.idle = w.rng.IntN(4) == 0
	w.bothDial = w.rng.IntN(3) == 0
	return w
}

func (w *world) logf(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%9.3f ", float64(w.now-1<<40)/1e9)+fmt.Sprintf(format, args...))
}

func (w *world) failf(format string, args ...any) {
	if w.fault == "" {
		w.fault = fmt.Sprintf(format, args...)
		w.logf("FAULT %s", w.fault)
	}
}

func (w *world) at(delay int64, do func()) {
	w.order++
	w.events = append(w.events, delivery{at: w.now + delay, order: w.order, do: do})
}

// run plays a stormy part, then a calm one, after which both must be in agreement.
func (w *world) run() {
	end := w.now + int64(200+w.rng.IntN(500))*second
	w.dial(w.nodes[0])
	w.at(0, w.traffic)
	w.at(second, w.weather)
	w.until(end)
	w.calm, w.loss, w.duplicates = true, 0, 0
	w.logf("calm")
	w.until(end + 400*second)
	for range 10 { // a ratchet may be under way at any moment
		if a, b := w.nodes[0].newest(), w.nodes[1].newest(); a != nil && b != nil && a.epoch != b.epoch {
			w.until(w.now + second)
		}
	}
	w.agree()
}

func (w *world) until(end int64) {
	for w.fault == "" {
		next := delivery{at: end + 1}
		which := -1
		for i, e := range w.events {
			if e.at < next.at || e.at == next.at && e.order < next.order {
				next, which = e, i
			}
		}
		for _, nd := range w.nodes {
			for _, l := range nd.lanes {
				if at := l.n.NextTick(); at < 1<<62 && at-nd.skew < next.at {
					at, l := max(at-nd.skew, w.now), l
					next, which = delivery{at: at, do: func() { nd.apply(l, l.n.Tick(nd.clock())) }}, -1
				}
			}
		}
		if next.at > end {
			w.now = end
			return
		}
		if which >= 0 {
			w.events = slices.Delete(w.events, which, which+1)
		}
		w.now = max(w.now, next.at)
		next.do()
	}
}

// weather breaks things.
func (w *world) weather() {
	w.at(second, w.weather)
	if w.calm {
		for _, nd := range w.nodes {
			if nd.link == nil || !nd.link.up[0] || !nd.link.up[1] {
				w.lose(nd.link)
				w.dial(w.nodes[0])
				return
			}
		}
		return
	}
	if l := w.nodes[0].link; l != nil && w.rng.Float64() < w.breaks {
		first := w.rng.IntN(2)
		orderly := w.rng.IntN(12) == 0
		w.end(l, first, orderly)
		if orderly {
			w.at(w.rng.Int64N(maxCapsule), func() { w.end(l, 1-first, true) })
		} else { // the other side learns of it later, or when it is dialed
			w.at(w.rng.Int64N(60*second), func() { w.end(l, 1-first, false) })
		}
		if w.rng.IntN(8) != 0 {
			w.at(w.rng.Int64N([]int64{second, 20 * second, 200 * second}[w.rng.IntN(3)]), func() { w.dial(w.nodes[0]) })
		}
		if w.bothDial {
			w.at(w.rng.Int64N(3*second), func() { w.dial(w.nodes[1]) })
		}
	}
	if w.rng.IntN(50) == 0 {
		w.dial(w.nodes[w.rng.IntN(1+btoi(w.bothDial))])
	}
	if w.rng.IntN(30) == 0 {
		w.nodes[w.rng.IntN(2)].move()
	}
	if w.rng.IntN(400) == 0 {
		nd := w.nodes[w.rng.IntN(2)]
		if l := nd.newest(); l != nil {
			nd.apply(l, l.n.Close(ReasonDown, nd.clock()))
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (w *world) lose(l *link) {
	if l != nil {
		w.end(l, 0, false)
		w.end(l, 1, false)
	}
}

// end ends a session at one node.
func (w *world) end(l *link, at int, orderly bool) {
	if !l.up[at] {
		return
	}
	w.logf("node %d: session ends, orderly %v", at, orderly)
	l.up[at] = false
	nd := w.nodes[at]
	for _, lane := range nd.lanes {
		nd.apply(lane, lane.n.SessionEnded(l.ends[at], orderly, nd.clock()))
	}
}

// dial makes a session whose client is nd. The dialing node has given its earlier one up.
func (w *world) dial(nd *node) {
	if nd.link != nil && nd.link.up[nd.index] {
		if nd.link.up[1-nd.index] && w.rng.IntN(2) == 0 {
			return // it works
		}
		w.end(nd.link, nd.index, false)
	}
	w.serial++
	l := &link{up: [2]bool{true, true}}
	binary.BigEndian.PutUint64(l.secret[:], w.serial)
	for i := range l.ends {
		role := keyschedule.Server
		if i == nd.index {
			role = keyschedule.Client
		}
		l.ends[i] = &Session{Role: role, Export: l.export}
	}
	w.links = append(w.links, l)
	w.logf("node %d: dials session %d", nd.index, w.serial)
	w.nodes[0].link, w.nodes[1].link = l, l
	nd.sessionUp(l)
}

func (l *link) export(label string, context []byte, length int) ([]byte, error) {
	h := hmac.New(sha256.New, l.secret[:])
	fmt.Fprintf(h, "%s %x", label, context)
	return h.Sum(nil)[:length], nil
}

// agree checks the end of the calm part.
func (w *world) agree() {
	if w.fault != "" {
		return
	}
	a, b := w.nodes[0].newest(), w.nodes[1].newest()
	if a == nil || b == nil {
		w.failf("no lane after the calm part")
		return
	}
	ia, _ := a.n.ID()
	ib, _ := b.n.ID()
	switch {
	case ia != ib:
		w.failf("different lanes after the calm part")
	case a.seal == nil || b.seal == nil || a.epoch != b.epoch:
		w.failf("epochs %d and %d, sealing %v and %v", a.epoch, b.epoch, a.seal != nil, b.seal != nil)
	case a.n.Bound() != w.nodes[0].link.ends[0] || b.n.Bound() != w.nodes[1].link.ends[1]:
		w.failf("not bound to the newest session")
	case w.packets == 0:
		w.failf("no packet came through")
	}
	for _, nd := range w.nodes {
		if live := len(slices.DeleteFunc(slices.Clone(nd.lanes), func(l *simLane) bool { return l.n.Closed() })); live != 1 {
			w.failf("node %d has %d lanes", nd.index, live)
		}
	}
}

package lane

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
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

type node struct {
	w     *world
	index int
	id    NodeID
	skew  int64
	lanes []*simLane // newest last
	link  *link      // newest session
}

// simLane is a machine and a dataplane that obeys it.
type simLane struct {
	n       *Negotiation
	open    map[uint32]*aead.PacketKey
	seal    *aead.PacketKey
	epoch   uint32
	number  uint64
	highest uint64
	peerID  IssuedID
	routes  map[ConnectionID]bool
	born    map[uint32]int64 // when this side sent what began an epoch
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

func (nd *node) clock() int64 { return nd.w.now + nd.skew }

func (nd *node) newest() *simLane {
	for _, l := range slices.Backward(nd.lanes) {
		if !l.n.Closed() {
			return l
		}
	}
	return nil
}

// sessionUp is what control does at the client of a new session.
func (nd *node) sessionUp(l *link) {
	if lane := nd.newest(); lane != nil {
		out, err := lane.n.Resume(l.ends[nd.index], nd.clock())
		nd.apply(lane, out)
		if err == nil {
			return
		}
	}
	nd.start(l)
}

func (nd *node) start(l *link) {
	lane := nd.add(NewClient)
	out, err := lane.n.Start(l.ends[nd.index], nd.clock())
	if err != nil {
		nd.w.failf("start: %v", err)
	}
	nd.apply(lane, out)
}

func (nd *node) add(maker func(Config) (*Negotiation, error)) *simLane {
	w := nd.w
	n, err := maker(Config{
		Local: nd.id, Peer: w.nodes[1-nd.index].id, MaxPacketBytes: 1500,
		Suites:   []aead.Suite{aead.AES128GCM, aead.ChaCha20Poly1305},
		Contexts: []ContextKind{ContextPartialChecksum, ContextPiece},
		Issue: func() (ConnectionID, ResetToken) {
			w.serial++
			var id ConnectionID
			binary.BigEndian.PutUint64(id[:], w.serial)
			if w.issued[id] {
				w.failf("connection ID %v issued twice", id)
			}
			w.issued[id] = true
			return id, ResetToken(sha256.New().Sum(id[:])[:ResetTokenBytes])
		},
	})
	if err != nil {
		panic(err)
	}
	lane := &simLane{
		n: n, open: map[uint32]*aead.PacketKey{}, routes: map[ConnectionID]bool{}, born: map[uint32]int64{},
	}
	nd.lanes = append(nd.lanes, lane)
	return lane
}

// deliver is what control does with a message.
func (nd *node) deliver(l *link, payload []byte) {
	if !l.up[nd.index] {
		return
	}
	h, err := Peek(payload)
	if err != nil {
		nd.w.failf("peek: %v", err)
		return
	}
	from := l.ends[nd.index]
	if lane := nd.owner(h, payload); lane != nil {
		out, err := lane.n.Step(from, payload, nd.clock())
		nd.w.logf("node %d: got %v: %v", nd.index, h.Kind, err)
		if errors.Is(err, ErrViolation) || errors.Is(err, ErrInternal) {
			nd.w.failf("node %d: %v", nd.index, err)
		}
		nd.apply(lane, out)
		return
	}
	if h.Kind == KindOffer && from.Role == keyschedule.Server {
		lane := nd.add(NewServer)
		out, err := lane.n.Step(from, payload, nd.clock())
		nd.w.logf("node %d: got offer: %v", nd.index, err)
		nd.apply(lane, out)
		return
	}
	if answer, err := Refuse(payload, ReasonPolicy); err == nil {
		nd.send(l, answer)
	}
}

// owner finds the machine that a message is for.
func (nd *node) owner(h Header, payload []byte) *simLane {
	for _, lane := range slices.Backward(nd.lanes) {
		id, named := lane.n.ID()
		offer, offered := lane.n.Offered()
		switch h.Kind {
		case KindOffer:
			if offered && offer == OfferIDOf(payload) {
				return lane
			}
		case KindAccept, KindRefusal:
			if offered && offer == OfferID(h.ID) {
				return lane
			}
		default:
			if named && id == ID(h.ID) {
				return lane
			}
		}
	}
	return nil
}

// send puts a message on a session: in order, without loss, as long as both ends have it.
func (nd *node) send(l *link, payload []byte) {
	w, to := nd.w, nd.peer()
	w.logf("node %d: sends %v", nd.index, Kind(payload[0]))
	if m, err := Parse(payload); err != nil || !bytes.Equal(m.Append(nil), payload) {
		w.failf("message does not survive its own parser: %v", err)
	}
	l.old = append(l.old, payload)
	copies := 1 + btoi(w.rng.Float64() < w.duplicates)
	for range copies {
		at := max(w.now+w.rng.Int64N(maxCapsule), l.lastAt[to.index])
		l.lastAt[to.index] = at
		w.at(at-w.now, func() {
			if l.up[nd.index] || w.rng.IntN(2) == 0 { // what was sent before the break may still come
				to.deliver(l, payload)
			}
		})
	}
	if w.duplicates > 0 && w.rng.IntN(20) == 0 { // an old message of an earlier session turns up in the newest
		stray := w.links[w.rng.IntN(len(w.links))].old
		if len(stray) > 0 && to.link != l {
			p := stray[w.rng.IntN(len(stray))]
			if k := Kind(p[0]); k == KindRatchetAnswer || k == KindAccept || k == KindAdoptAnswer {
				w.at(w.rng.Int64N(second), func() { to.deliver(to.link, p) })
			}
		}
	}
}

func (nd *node) peer() *node { return nd.w.nodes[1-nd.index] }

// apply does what the machine says: events first, then messages.
func (nd *node) apply(lane *simLane, out Output) {
	w := nd.w
	for _, m := range out.Messages { // note when epochs are begun, for the 180 s
		switch Kind(m.Payload[0]) {
		case KindOffer, KindAccept:
			lane.born[0] = w.now
		case KindRatchetRequest, KindRatchetAnswer:
			parsed, _ := Parse(m.Payload)
			if r, ok := parsed.(*RatchetRequest); ok {
				lane.born[r.Epoch] = w.now
			} else if r, ok := parsed.(*RatchetAnswer); ok && lane.born[r.Epoch] == 0 {
				lane.born[r.Epoch] = w.now
			}
		}
	}
	var again []func()
	for _, e := range out.Events {
		w.logf("node %d: %v epoch %d %v", nd.index, e.Kind, e.Epoch, e.Reason)
		switch e.Kind {
		case EventReady:
			lane.peerID = e.Params.FirstPeerID
		case EventIssue:
			lane.routes[e.ID] = true
		case EventRetire:
			delete(lane.routes, e.ID)
		case EventInstall:
			lane.open[e.Epoch] = e.Open
		case EventSeal:
			lane.seal, lane.epoch = e.Seal, e.Epoch
		case EventSealStop:
			lane.seal = nil
		case EventWipe:
			delete(lane.open, e.Epoch)
		case EventPing, EventReport:
			again = append(again, func() { nd.sealOne(lane) })
		case EventAdoptionFailed:
			if b := nd.link; b != nil && b.up[nd.index] && b.ends[nd.index].Role == keyschedule.Client {
				again = append(again, func() { nd.start(b) })
			}
		case EventClosed:
			lane.seal, lane.open = nil, nil
			lane.routes = map[ConnectionID]bool{}
			if b := nd.link; e.Reason != ReasonReplaced && b != nil && b.up[nd.index] &&
				b.ends[nd.index].Role == keyschedule.Client {
				again = append(again, func() {
					if nd.newest() == nil && b.up[nd.index] {
						nd.start(b)
					}
				})
			}
		}
	}
	for _, m := range out.Messages {
		for _, l := range w.links {
			if l.ends[nd.index] == m.Session && l.up[nd.index] {
				nd.send(l, m.Payload)
			}
		}
	}
	for _, do := range again {
		do()
	}
}

// traffic seals a packet at each node now and then.
func (w *world) traffic() {
	gap := 2 * second
	if w.idle && !w.calm {
		gap = 100 * second
	}
	w.at(1+w.rng.Int64N(gap), w.traffic)
	for _, nd := range w.nodes {
		for _, l := range nd.lanes {
			nd.sealOne(l)
		}
	}
}

// move takes a new connection ID and retires the old one.
func (nd *node) move() {
	l := nd.newest()
	if l == nil || !l.n.Live() {
		return
	}
	if id, ok := l.n.UsePeerID(); ok {
		if !l.n.RetirePeerID(l.peerID.Sequence) {
			nd.w.failf("no connection ID %d to retire", l.peerID.Sequence)
		}
		l.peerID = id
	}
}

// twin finds the same lane at the other node.
func (nd *node) twin(l *simLane) *simLane {
	id, _ := l.n.ID()
	for _, o := range nd.peer().lanes {
		if oid, ok := o.n.ID(); ok && oid == id {
			return o
		}
	}
	return nil
}

// sealOne seals a packet, checks that it may, and sends it.
func (nd *node) sealOne(l *simLane) {
	w := nd.w
	if l.seal == nil || l.n.Closed() {
		return
	}
	if age := w.now - l.born[l.epoch]; age > int64(SealFor) || l.born[l.epoch] == 0 {
		w.failf("node %d seals with epoch %d, %.3f s after its ratchet", nd.index, l.epoch, float64(age)/1e9)
	}
	o := nd.twin(l)
	if o == nil {
		w.failf("node %d seals on a lane that the other has not", nd.index)
		return
	}
	if !o.n.Closed() && o.open[l.epoch] == nil {
		w.failf("node %d seals with epoch %d, which the other cannot open", nd.index, l.epoch)
	}
	if !o.n.Closed() && !o.routes[l.peerID.ID] {
		w.failf("node %d sends to a connection ID that the other does not take", nd.index)
	}
	iv := l.seal.IV()
	var nonce [aead.NonceBytes + 8]byte
	binary.BigEndian.PutUint64(nonce[copy(nonce[:], iv[:]):], l.number)
	if w.nonces[nonce] {
		w.failf("nonce twice: epoch %d number %d", l.epoch, l.number)
	}
	w.nonces[nonce] = true
	number, epoch := l.number, l.epoch
	packet := l.seal.AEAD().Seal(nil, packetNonce(l.seal, number), []byte("payload"), nil)
	l.number++
	if w.rng.Float64() < w.loss {
		return
	}
	sent := w.now
	for range 1 + btoi(w.rng.Float64() < w.duplicates) {
		w.at(w.rng.Int64N(maxUDPDelay), func() { nd.peer().receive(o, epoch, number, packet, sent) })
	}
}

func packetNonce(k *aead.PacketKey, number uint64) []byte {
	iv := k.IV()
	tail := binary.BigEndian.Uint64(iv[4:]) ^ number
	binary.BigEndian.PutUint64(iv[4:], tail)
	return iv[:]
}

// receive opens a packet.
func (nd *node) receive(l *simLane, epoch uint32, number uint64, packet []byte, sent int64) {
	w := nd.w
	if l.n.Closed() {
		return
	}
	key := l.open[epoch]
	if key == nil {
		w.failf("node %d cannot open epoch %d, %.3f s old", nd.index, epoch, float64(w.now-sent)/1e9)
		return
	}
	if _, err := key.AEAD().Open(nil, packetNonce(key, number), packet, nil); err != nil {
		w.failf("node %d: keys of epoch %d differ", nd.index, epoch)
	}
	w.packets++
	l.highest = max(l.highest, number+1)
	nd.apply(l, l.n.Opened(epoch, nd.clock()))
	for _, older := range nd.lanes { // the new lane carries packets: the one before can go
		if older == l {
			break
		}
		if !older.n.Closed() {
			nd.apply(older, older.n.Drop(ReasonReplaced, nd.clock()))
		}
	}
	nd.apply(l, l.n.Progress(l.number, l.highest, nd.clock()))
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

package netsim

import (
	"encoding/binary"
	"errors"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

const (
	// tickNanos is how often control gives lanes the time of day.
	tickNanos = 250 * millisecond
	// retryNanos is how long after the end of a lane another one is offered over the same session.
	retryNanos = 30 * second
	// forced is what a ratchet is forced with: as if so many packets had been sealed.
	forced = 1 << 25
)

// party is what a node has of lanes with one peer, as package control does it.
type party struct {
	nd, peer *node
	current  *laneState
	older    *laneState
	live     map[*lane.Session]*session
	client   *session
	retryAt  int64
}

// laneState is one lane.
type laneState struct {
	p      *party
	n      *lane.Negotiation
	lane   laneEnd
	issued []lane.ConnectionID
	bias   uint64 // packets that have never been sealed, to force ratchets
	side   *side  // what the tap knows
	told   bool
}

func newParty(nd, peer *node) *party {
	return &party{nd: nd, peer: peer, live: map[*lane.Session]*session{}}
}

func (p *party) now() int64 { return p.nd.w.net.Nanos() + int64(p.nd.index)*1000*second }

func (p *party) states() []*laneState {
	var all []*laneState
	for _, c := range [...]*laneState{p.current, p.older} {
		if c != nil {
			all = append(all, c)
		}
	}
	return all
}

func (p *party) begin(s *session) { p.live[&s.ends[s.end(p.nd)]] = s }

// offer begins a lane, or goes on with the one there is.
func (p *party) offer(s *session) {
	p.client = s
	if c := p.current; c != nil && c.n.Live() && c.n.Bound() == nil {
		out, err := c.n.Resume(&s.ends[0], p.now())
		p.apply(c, out)
		if err == nil {
			return
		}
	}
	p.offerNew()
}

func (p *party) offerNew() {
	s := p.client
	if s == nil {
		return
	}
	n, err := lane.NewClient(p.config())
	if err != nil {
		p.nd.w.failf("offer: %v", err)
		return
	}
	c := p.replace(n)
	out, err := n.Start(&s.ends[0], p.now())
	p.nd.w.must(err)
	p.apply(c, out)
}

func (p *party) replace(n *lane.Negotiation) *laneState {
	p.retryAt = 0
	before := p.current
	p.current = &laneState{p: p, n: n}
	switch {
	case before == nil:
	case p.older == nil:
		p.older = before
	case before.heard():
		drop := p.older
		p.older = before
		p.apply(drop, drop.n.Drop(lane.ReasonReplaced, p.now()))
	default:
		p.apply(before, before.n.Drop(lane.ReasonReplaced, p.now()))
	}
	return p.current
}

func (p *party) config() lane.Config {
	w := p.nd.w
	return lane.Config{
		Local: p.nd.id, Peer: p.peer.id, QuarterStreamID: uint8(w.serial % 8), MaxPacketBytes: maxPacketBytes,
		Suites:   []aead.Suite{aead.AES128GCM, aead.AES256GCM},
		Contexts: []lane.ContextKind{lane.ContextPartialChecksum, lane.ContextPiece},
		Issue: func() (lane.ConnectionID, lane.ResetToken) {
			w.serialID++
			var id lane.ConnectionID
			binary.BigEndian.PutUint64(id[:], w.serialID*0x9e3779b97f4a7c15)
			id[0] = 0
			return id, lane.ResetToken(append(id[:], id[:]...))
		},
	}
}

// message takes a message that came over a session.
func (p *party) message(s *session, payload []byte) {
	w, end := p.nd.w, &s.ends[s.end(p.nd)]
	h, err := lane.Peek(payload)
	if err != nil {
		w.failf("node %d: peek: %v", p.nd.index, err)
		return
	}
	c := p.find(h, payload)
	switch {
	case c == nil && h.Kind == lane.KindOffer && end.Role == keyschedule.Server && s == w.lastBegun(p.nd, p.peer):
		n, err := lane.NewServer(p.config())
		w.must(err)
		c = p.replace(n)
	case c == nil:
		if answer, err := lane.Refuse(payload, lane.ReasonPolicy); err == nil {
			s.send(p.nd, answer)
		}
		return
	}
	out, err := c.n.Step(end, payload, p.now())
	if errors.Is(err, lane.ErrViolation) || errors.Is(err, lane.ErrInternal) || errors.Is(err, lane.ErrMalformed) {
		w.failf("node %d: %v: %v", p.nd.index, h.Kind, err)
	}
	p.apply(c, out)
}

func (p *party) find(h lane.Header, payload []byte) *laneState {
	for _, c := range p.states() {
		offered, wasOffered := c.n.Offered()
		id, named := c.n.ID()
		switch h.Kind {
		case lane.KindOffer:
			if wasOffered && offered == lane.OfferIDOf(payload) {
				return c
			}
		case lane.KindAccept, lane.KindRefusal:
			if wasOffered && offered == lane.OfferID(h.ID) {
				return c
			}
		default:
			if named && id == lane.ID(h.ID) {
				return c
			}
		}
	}
	return nil
}

// apply does what a negotiation asks for.
func (p *party) apply(c *laneState, out lane.Output) {
	for _, e := range out.Events {
		p.nd.w.logf("node %d: lane with %d: %v, epoch %d %v", p.nd.index, p.peer.index, e.Kind, e.Epoch, e.Reason)
		if err := c.do(e); err != nil {
			p.nd.w.failf("node %d: %v of epoch %d: %v", p.nd.index, e.Kind, e.Epoch, err)
			return
		}
	}
	for _, m := range out.Messages {
		if s := p.live[m.Session]; s != nil {
			s.send(p.nd, m.Payload)
		}
	}
}

// do is one thing that a negotiation asks for.
func (c *laneState) do(e lane.Event) error {
	w := c.p.nd.w
	switch e.Kind {
	case lane.EventReady:
		return c.ready(e.Params)
	case lane.EventIssue:
		if c.lane == nil {
			c.issued = append(c.issued, e.ID)
			return nil
		}
		c.issue(e.ID)
	case lane.EventAdoptionFailed:
		w.counts.failedAdoptions++
		if w.tap.settled {
			w.failf("node %d: an adoption failed in a network without faults", c.p.nd.index)
		}
		if c.p.current == c {
			c.p.offerNew()
		}
	case lane.EventClosed:
		if c.lane != nil {
			c.lane.Close()
			c.side.closed = true
		}
		c.p.forget(c, e.Reason)
	}
	if c.lane == nil {
		return nil
	}
	switch e.Kind {
	case lane.EventRetire:
		c.lane.Retire(e.ID)
	case lane.EventPeerIDs:
		c.lane.AddPeerIDs(e.PeerIDs)
	case lane.EventInstall:
		c.side.install(e.Epoch, e.Open)
		if e.Epoch > 0 {
			w.counts.ratchets++
		}
		return c.lane.Install(e.Epoch, e.Open, e.Seal)
	case lane.EventSeal:
		return c.lane.Seal(e.Epoch, e.Seal)
	case lane.EventAdopted:
		w.counts.adoptions++
		if s := c.p.live[c.n.Bound()]; s != nil {
			remote := s.remote[s.end(c.p.nd)]
			c.side.place(remote).valid = true // the session has shown that
			c.lane.Try(remote)
		}
		return c.lane.Keep(e.Epoch)
	case lane.EventWipe:
		c.lane.Expire()
	case lane.EventSealStop:
		c.lane.SealStop()
	case lane.EventPing:
		c.lane.Ping()
	}
	return nil
}

func (c *laneState) issue(id lane.ConnectionID) {
	c.lane.Issue(id)
	c.side.issue(id)
}

// ready makes the lane that both sides have agreed on.
func (c *laneState) ready(params *lane.Params) error {
	p, w := c.p, c.p.nd.w
	s := p.live[c.n.Bound()]
	if s == nil {
		return errors.New("the session has ended")
	}
	to := s.remote[s.end(p.nd)]
	c.side = w.tap.newSide(p.nd, params, to)
	var err error
	c.lane, err = p.nd.machine.newLane(laneSpec{
		peer: p.peer, to: to, params: params, bytes: w.sessionBytes(), opened: func() { p.openedLater(c) },
	})
	if err != nil {
		return err
	}
	for _, id := range c.issued {
		c.issue(id)
	}
	c.issued = nil
	return nil
}

// twin is the same lane at the other end, or nil.
func (c *laneState) twin() *laneState {
	id, _ := c.n.ID()
	for _, o := range c.p.peer.parties[c.p.nd.index].states() {
		if other, named := o.n.ID(); named && other == id && o.lane != nil {
			return o
		}
	}
	return nil
}

// heard reports whether a packet of the lane has been opened.
func (c *laneState) heard() bool {
	if c.lane == nil {
		return false
	}
	_, ok := c.lane.Epoch()
	return ok
}

// openedLater has control learn, some time later, that a lane has opened the first packet of an epoch.
func (p *party) openedLater(c *laneState) {
	if c.told {
		return
	}
	c.told = true
	w := p.nd.w
	w.net.After(w.between(0, w.style.lagNanos)+max(p.nd.stalled-w.net.Nanos(), 0), func() {
		c.told = false
		if w.fault == "" {
			p.opened(c)
		}
	})
}

func (p *party) opened(c *laneState) {
	epoch, ok := c.lane.Epoch()
	if !ok {
		return
	}
	p.apply(c, c.n.Opened(epoch, p.now()))
	if o := p.older; o != nil && p.current == c {
		p.apply(o, o.n.Drop(lane.ReasonReplaced, p.now()))
	}
}

// ended is told that a session is over.
func (p *party) ended(s *session, orderly bool) {
	end := &s.ends[s.end(p.nd)]
	delete(p.live, end)
	if p.client == s {
		p.client = nil
	}
	for _, c := range p.states() {
		p.apply(c, c.n.SessionEnded(end, orderly, p.now()))
	}
	if orderly && len(p.live) == 0 {
		for _, c := range p.states() {
			p.apply(c, c.n.Drop(lane.ReasonSessionEnded, p.now()))
		}
	}
}

// forget removes a lane that is over.
func (p *party) forget(c *laneState, reason lane.Reason) {
	switch c {
	case p.current:
		p.current = nil
		if p.client != nil && reason != lane.ReasonDown && reason != lane.ReasonReplaced {
			p.retryAt = p.now() + retryNanos
		}
	case p.older:
		p.older = nil
	}
}

// tick gives all lanes the time of day.
func (w *world) tick() {
	w.net.After(tickNanos, w.tick)
	for _, nd := range w.nodes {
		if nd.stalled > w.net.Nanos() {
			continue
		}
		for _, p := range nd.parties {
			if p != nil && w.fault == "" {
				p.tick()
			}
		}
	}
}

func (p *party) tick() {
	for _, c := range p.states() {
		if c.lane == nil {
			p.apply(c, c.n.Tick(p.now()))
			continue
		}
		if reason, failed := c.lane.Failed(); failed {
			p.nd.w.failf("node %d: a lane has failed: %v", p.nd.index, reason)
		} else {
			for _, sequence := range c.lane.TakeRetired() {
				c.n.RetirePeerID(sequence)
			}
			sealed, opened := c.lane.Progress()
			p.apply(c, c.n.Progress(sealed+c.bias, opened+c.bias, p.now()))
		}
	}
	if p.retryAt != 0 && p.now() >= p.retryAt {
		p.retryAt = 0
		p.offerNew()
	}
}

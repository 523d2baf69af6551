package control

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// laneParty is what there is of lanes with one peer. It is guarded by Lanes.mu, and forgotten once there is nothing.
type laneParty struct {
	lanes   *Lanes
	peer    identity.ID
	current *laneState // the newest
	older   *laneState // to be dropped once the newest carries packets
	live    map[*lane.Session]*laneSession
	client  *laneSession  // over which we make lanes; nil where the peer does
	retryAt int64         // when another lane is offered over client; 0 is never
	offers  *rate.Limiter // of the peer
	over    bool          // no more lanes are made
	begun   uint64        // sessions so far

	sealedBefore, openedBefore uint64 // packets of lanes that are over
}

// states are all lanes of the party, the newest first.
func (p *laneParty) states() []*laneState {
	var all []*laneState
	for _, c := range [...]*laneState{p.current, p.older} {
		if c != nil {
			all = append(all, c)
		}
	}
	return all
}

// offerNew offers a lane over the session whose client we are.
func (p *laneParty) offerNew() error {
	s := p.client
	if s == nil {
		return nil
	}
	n, err := lane.NewClient(p.config(s))
	if err != nil {
		return fmt.Errorf("offer a lane: %w", err)
	}
	c := p.replace(n)
	out, err := n.Start(&s.Session, p.lanes.cfg.Nanos())
	p.apply(c, out)
	return err
}

// replace makes a new negotiation the party's newest. There are never more than two lanes: of those before it the one
// stays that has carried packets.
func (p *laneParty) replace(n *lane.Negotiation) *laneState {
	p.retryAt = 0
	before := p.current
	p.current = &laneState{party: p, n: n}
	switch {
	case before == nil:
	case p.older == nil:
		p.older = before
	case before.heard():
		drop := p.older
		p.older = before
		p.apply(drop, drop.n.Drop(lane.ReasonReplaced, p.lanes.cfg.Nanos()))
	default:
		p.apply(before, before.n.Drop(lane.ReasonReplaced, p.lanes.cfg.Nanos()))
	}
	return p.current
}

func (p *laneParty) config(s *laneSession) lane.Config {
	ls := p.lanes
	return lane.Config{
		Local: lane.NodeID(ls.cfg.Local), Peer: lane.NodeID(p.peer),
		QuarterStreamID: uint8(s.link.session.QuarterStreamID()), MaxPacketBytes: lanePacketBytes,
		Suites: ls.cfg.Suites, Contexts: []lane.ContextKind{lane.ContextPartialChecksum, lane.ContextPiece},
		Issue: func() (lane.ConnectionID, lane.ResetToken) {
			id := ls.cfg.IDs.Next(0)
			return id, s.socket.Resetter.Token(id)
		},
	}
}

// lanePacketBytes is the longest lane packet: what a path of 1,500 bytes carries over IPv6.
const lanePacketBytes = 1452

// message takes a message that came over a session.
func (p *laneParty) message(s *laneSession, payload []byte) error {
	h, err := lane.Peek(payload)
	if err != nil {
		return err
	}
	c := p.find(h, payload)
	if c == nil && h.Kind == lane.KindOffer && s.Role == keyschedule.Server && h.Number == 0 && p.isNewest(s) {
		return p.offered(s, payload)
	}
	if c == nil {
		return p.refuse(s, payload, lane.ReasonPolicy)
	}
	out, err := c.n.Step(&s.Session, payload, p.lanes.cfg.Nanos())
	p.apply(c, out)
	return err
}

// isNewest reports whether a session is the last that has begun: the client has gone on to that one, and what it said of
// lanes on others before is not to undo what it says there.
func (p *laneParty) isNewest(s *laneSession) bool {
	for _, other := range p.live {
		if other.serial > s.serial {
			return false
		}
	}
	return true
}

// offered answers the offer of a lane.
func (p *laneParty) offered(s *laneSession, payload []byte) error {
	now := p.lanes.cfg.Nanos()
	if !p.offers.AllowN(time.Unix(0, now), 1) {
		return p.refuse(s, payload, lane.ReasonExcessive)
	}
	if _, err := lane.Parse(payload); err != nil {
		return err
	}
	n, err := lane.NewServer(p.config(s))
	if err != nil {
		return fmt.Errorf("answer the offer of a lane: %w", err)
	}
	c := p.replace(n)
	out, err := n.Step(&s.Session, payload, now)
	p.apply(c, out)
	if c.failed {
		err = errors.Join(err, p.refuse(s, payload, lane.ReasonInternal))
	}
	return err
}

// refuse answers a message for which there is no lane.
func (p *laneParty) refuse(s *laneSession, payload []byte, reason lane.Reason) error {
	answer, err := lane.Refuse(payload, reason)
	if err == nil {
		s.send(answer)
	}
	return err
}

// find returns the lane that a message is about, or nil.
func (p *laneParty) find(h lane.Header, payload []byte) *laneState {
	for _, c := range p.states() {
		switch h.Kind {
		case lane.KindOffer:
			if offered, ok := c.n.Offered(); ok && offered == lane.OfferIDOf(payload) {
				return c
			}
		case lane.KindAccept, lane.KindRefusal:
			if offered, ok := c.n.Offered(); ok && offered == lane.OfferID(h.ID) {
				return c
			}
		default:
			if id, ok := c.n.ID(); ok && id == lane.ID(h.ID) {
				return c
			}
		}
	}
	return nil
}

// apply does what a negotiation asks for. A lane for which that cannot be done is closed, and its answers do not leave.
func (p *laneParty) apply(c *laneState, out lane.Output) {
	for _, e := range out.Events {
		err := c.do(e)
		if err == nil {
			continue
		}
		p.lanes.notice(fmt.Sprintf("lane: %v", e.Kind), err)
		if !c.n.Closed() {
			c.failed = true
			p.apply(c, c.n.Close(lane.ReasonInternal, p.lanes.cfg.Nanos()))
			return
		}
	}
	for _, m := range out.Messages {
		if s := p.live[m.Session]; s != nil { // it has not ended
			s.send(m.Payload)
		}
	}
}

// opened is told that a lane has opened the first packet of an epoch. It carries packets from then on, and the older one
// is not needed.
func (p *laneParty) opened(c *laneState, now int64) {
	epoch, ok := c.lane.Epoch()
	if !ok {
		return
	}
	p.apply(c, c.n.Opened(epoch, now))
	if o := p.older; o != nil && p.current == c {
		p.apply(o, o.n.Drop(lane.ReasonReplaced, now))
	}
}

// failed is told that a lane has ended by itself.
func (p *laneParty) failed(c *laneState, reason lane.Reason, now int64) {
	if reason != lane.ReasonReset {
		p.apply(c, c.n.Close(reason, now))
		return
	}
	// The peer has forgotten the lane, and the session too if it has lost its memory. What the session's client, or else its
	// server, says on it now finds that out, and ends it.
	if p.client != nil {
		p.apply(c, c.n.Drop(reason, now))
	} else {
		p.apply(c, c.n.Close(reason, now))
	}
	p.retry(now)
}

func (p *laneParty) tick(now int64) {
	for _, c := range p.states() {
		if c.lane == nil {
			p.apply(c, c.n.Tick(now))
			continue
		}
		for _, sequence := range c.lane.TakeRetired() {
			c.n.RetirePeerID(sequence)
		}
		sealed, opened := c.lane.Progress()
		p.apply(c, c.n.Progress(sealed, opened, now))
	}
	p.retry(now)
	p.tidy()
}

// retry offers another lane if it is time to.
func (p *laneParty) retry(now int64) {
	if p.retryAt == 0 || now < p.retryAt {
		return
	}
	p.retryAt = 0
	if err := p.offerNew(); err != nil {
		p.lanes.notice("lane: offer", err)
	}
}

// forget removes a lane that is over, for a reason.
func (p *laneParty) forget(c *laneState, reason lane.Reason) {
	sealed, opened := c.progress()
	p.sealedBefore, p.openedBefore = p.sealedBefore+sealed, p.openedBefore+opened
	switch c {
	case p.current:
		p.current = nil
		if p.client == nil || p.over || !worthRetrying(reason) {
			return
		}
		p.retryAt = p.lanes.cfg.Nanos() + int64(retryAfter(reason))
	case p.older:
		p.older = nil
	}
}

// retryAfter is how long after the end of a lane another one is offered over the same session.
func retryAfter(r lane.Reason) time.Duration {
	switch r {
	case lane.ReasonReset: // the peer has nothing against a lane
		return 0
	case lane.ReasonTimeout:
		return laneRetrySilent
	}
	return laneRetryAfter
}

// worthRetrying reports whether after the end of a lane another one may do better over the same session.
func worthRetrying(r lane.Reason) bool {
	switch r {
	case lane.ReasonUnspecified, lane.ReasonProtocol, lane.ReasonForgery, lane.ReasonExpired, lane.ReasonExcessive,
		lane.ReasonInternal, lane.ReasonReset, lane.ReasonTimeout:
		return true
	}
	return false
}

// tidy forgets a party of which nothing is left.
func (p *laneParty) tidy() {
	if len(p.live) == 0 && p.current == nil && p.older == nil && p.lanes.parties[p.peer] == p {
		delete(p.lanes.parties, p.peer)
	}
}

func (p *laneParty) close(reason lane.Reason) {
	for _, c := range p.states() {
		p.apply(c, c.n.Close(reason, p.lanes.cfg.Nanos()))
	}
}

package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/time/rate"

	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

const (
	// laneTick is how often lanes look at the time.
	laneTick = 250 * time.Millisecond
	// laneOfferPeriod is how often a peer may offer a lane, beyond laneOfferBurst offers: each costs a key encapsulation.
	laneOfferPeriod = time.Second
	laneOfferBurst  = 8
	// laneRetryAfter is how long after the end of a lane whose session goes on another one is offered over it.
	laneRetryAfter = 30 * time.Second
	// laneRetrySilent is the same if an offer was not answered: mostly the peer knows nothing of lanes.
	laneRetrySilent = 10 * time.Minute
)

// errUnread is why a session is given up on which the peer does not read what it is told of lanes.
var errUnread = errors.New("the peer does not read what it is told of lanes")

// LaneDataplane is the part of [dataplane.Engine] that lanes use.
type LaneDataplane interface {
	NewLane(cfg dataplane.LaneConfig) (*dataplane.Lane, error)
}

// LanesConfig says how a node makes lanes.
type LanesConfig struct {
	Dataplane LaneDataplane
	Local     identity.ID
	Suites    []aead.Suite // allowed, best first
	IDs       *lane.IDGenerator
	Notice    func(text string, err error) // for the log; called with a lock held, must not block
	// Nanos is the time, of a clock that does not go back and goes on while the host sleeps; nil is the time since
	// NewLanes as package time counts it.
	Nanos func() int64
}

// Lanes keeps the lanes of a node: it negotiates them over sessions, and has the dataplane do what was agreed.
type Lanes struct {
	cfg     LanesConfig
	news    laneNews
	notices *rate.Limiter

	mu      sync.Mutex // guards the rest; the locks of the dataplane and of sessions are taken under it, never around it
	parties map[identity.ID]*laneParty
	closed  bool
}

// NewLanes returns the lanes of a node that has none yet.
func NewLanes(cfg LanesConfig) *Lanes {
	if cfg.Nanos == nil {
		start := time.Now()
		cfg.Nanos = func() int64 { return int64(time.Since(start)) }
	}
	return &Lanes{
		cfg: cfg, news: laneNews{wake: make(chan struct{}, 1)},
		notices: rate.NewLimiter(rate.Every(refusalPeriod), 5), parties: make(map[identity.ID]*laneParty),
	}
}

// laneNews are the lanes that have opened the first packet of an epoch, or ended by themselves, as told by receiving
// threads, which must not wait.
type laneNews struct {
	mu   sync.Mutex
	of   []*laneState  // none twice
	wake chan struct{} // capacity 1
}

func (n *laneNews) add(c *laneState) {
	if c.told.Swap(true) {
		return
	}
	n.mu.Lock()
	n.of = append(n.of, c)
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

func (n *laneNews) take() []*laneState {
	n.mu.Lock()
	defer n.mu.Unlock()
	of := n.of
	n.of = nil
	for _, c := range of {
		c.told.Store(false)
	}
	return of
}

// laneSession is a session as lanes see it.
type laneSession struct {
	lane.Session
	party  *laneParty
	link   *link
	socket *LaneSocket
	serial uint64 // later sessions have higher ones
}

// notice writes a line to the log, unless there have been too many.
func (ls *Lanes) notice(text string, err error) {
	if ls.notices.Allow() {
		ls.cfg.Notice(text, err)
	}
}

// LaneSocket is a UDP socket with sessions, which their lanes share.
type LaneSocket struct {
	*udp.Conn
	// Resetter has the key of the stateless resets that are sent for what QUIC on this socket does not know.
	Resetter *lane.Resetter
}

// socketKey is the context key of the socket below a QUIC connection.
type socketKey struct{}

// WithSocket notes in the context of a QUIC connection which socket it is on.
func WithSocket(ctx context.Context, s *LaneSocket) context.Context {
	return context.WithValue(ctx, socketKey{}, s)
}

// begin makes the lanes know a session with a peer. It returns nil, with which all other methods do nothing, if there
// are no lanes, or the session is not on a socket that can have any.
func (ls *Lanes) begin(peer identity.ID, l *link, socket *LaneSocket, role keyschedule.Role) *laneSession {
	if ls == nil || socket == nil || l.session.QuarterStreamID() > lane.MaxQuarterStreamID {
		return nil
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed {
		return nil
	}
	p := ls.parties[peer]
	if p == nil {
		p = &laneParty{
			lanes: ls, peer: peer, live: make(map[*lane.Session]*laneSession),
			offers: rate.NewLimiter(rate.Every(laneOfferPeriod), laneOfferBurst),
		}
		ls.parties[peer] = p
	}
	p.begun++
	s := &laneSession{party: p, link: l, socket: socket, serial: p.begun}
	tlsState := l.conn.ConnectionState().TLS
	s.Role, s.Export = role, tlsState.ExportKeyingMaterial
	p.live[&s.Session] = s
	return s
}

// offer begins a lane over a session whose client we are, or goes on with the one there is. Later sessions are to be
// preferred: what has to be made anew is made over the one that came last.
func (ls *Lanes) offer(s *laneSession) error {
	if s == nil {
		return nil
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	p := s.party
	if ls.closed || p.over || p.live[&s.Session] == nil {
		return nil
	}
	p.client = s
	if c := p.current; c != nil && c.n.Live() && c.n.Bound() == nil {
		out, err := c.n.Resume(&s.Session, ls.cfg.Nanos())
		p.apply(c, out)
		if err == nil {
			return nil
		}
	}
	return p.offerNew()
}

// message takes the payload of a lane capsule that came over a session. After an error that wraps [lane.ErrMalformed] the
// session should end.
func (ls *Lanes) message(s *laneSession, payload []byte) error {
	if s == nil {
		return nil
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	p := s.party
	if ls.closed || p.over || p.live[&s.Session] == nil {
		return nil
	}
	err := p.message(s, payload)
	switch {
	case errors.Is(err, lane.ErrIgnored), errors.Is(err, lane.ErrUnknownKind):
		return nil
	case errors.Is(err, lane.ErrMalformed):
		for _, c := range p.states() {
			if c.n.Bound() == &s.Session {
				p.apply(c, c.n.Close(lane.ReasonProtocol, ls.cfg.Nanos()))
			}
		}
	}
	return err
}

// send queues a message. A session whose peer does not read would leave its lanes without answers, so it ends.
func (s *laneSession) send(payload []byte) {
	err := s.link.session.SendPrivate(masque.CapsuleLane, payload)
	if err != nil && !errors.Is(err, masque.ErrClosed) {
		s.link.cancel(fmt.Errorf("%w: %w", errUnread, err))
	}
}

// ended tells the lanes that a session is over. One that was lost, not ended in order, is outlived by its lanes for a
// while.
func (ls *Lanes) ended(s *laneSession, orderly bool) {
	if s == nil {
		return
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	p := s.party
	if p.live[&s.Session] == nil {
		return
	}
	delete(p.live, &s.Session)
	if p.client == s {
		p.client = nil
	}
	now := ls.cfg.Nanos()
	for _, c := range p.states() {
		p.apply(c, c.n.SessionEnded(&s.Session, orderly, now))
	}
	if orderly && len(p.live) == 0 {
		// The peer is gone for good, and with it the lanes that have outlived an earlier session.
		for _, c := range p.states() {
			p.apply(c, c.n.Drop(lane.ReasonSessionEnded, now))
		}
	}
	p.tidy()
}

// drop ends all lanes with a peer at once, for good: its sessions, which are about to end, can make no others.
func (ls *Lanes) drop(peer identity.ID, reason lane.Reason) {
	if ls == nil {
		return
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if p := ls.parties[peer]; p != nil {
		p.over = true
		p.close(reason)
		delete(ls.parties, peer)
	}
}

// Run gives lanes the time of day until ctx ends, and ends them all then.
func (ls *Lanes) Run(ctx context.Context) error {
	tick := time.NewTicker(laneTick)
	defer tick.Stop()
	for {
		select {
		case <-ls.news.wake:
			ls.told(ls.news.take())
		case <-tick.C:
			ls.tick()
		case <-ctx.Done():
			ls.close()
			return nil
		}
	}
}

// told takes in what the dataplane tells of lanes.
func (ls *Lanes) told(list []*laneState) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, c := range list {
		if reason, failed := c.lane.Failed(); failed {
			c.party.failed(c, reason, ls.cfg.Nanos())
		} else {
			c.party.opened(c, ls.cfg.Nanos())
		}
	}
}

func (ls *Lanes) tick() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	now := ls.cfg.Nanos()
	for _, p := range ls.parties {
		p.tick(now)
	}
}

func (ls *Lanes) close() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.closed = true
	for _, p := range ls.parties {
		p.close(lane.ReasonDown)
	}
}

// progress counts the packets that the lanes of a session's peer have sealed and opened.
func (ls *Lanes) progress(s *laneSession) (sealed, opened uint64) {
	if s == nil {
		return 0, 0
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	sealed, opened = s.party.sealedBefore, s.party.openedBefore
	for _, c := range s.party.states() {
		out, in := c.progress()
		sealed, opened = sealed+out, opened+in
	}
	return sealed, opened
}

// orderly reports whether a session that ended with err was ended by its peer on purpose, for good.
func orderly(err error) bool {
	closed, ok := errors.AsType[*quic.ApplicationError](err)
	return errors.Is(err, masque.ErrPeerClosed) ||
		ok && closed.Remote && closed.ErrorCode == quic.ApplicationErrorCode(http3.ErrCodeNoError)
}

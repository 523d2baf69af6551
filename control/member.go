package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// ErrRefused means that the gateway knows us and does not let us in: the node was revoked, or its state was lost.
var ErrRefused = errors.New("the gateway no longer admits this node: ask for a new invite and join with a fresh --state")

// Transport dials QUIC connections. *quic.Transport does.
type Transport interface {
	Dial(ctx context.Context, addr net.Addr, tlsConf *tls.Config, conf *quic.Config) (*quic.Conn, error)
}

// MemberConfig holds what a member needs for its whole life.
type MemberConfig struct {
	Key         *identity.Private
	Membership  store.Membership
	Save        func(store.Membership) error // keeps a changed membership
	KeyExchange masque.KeyExchange
	Transport   Transport
	Resolver    Resolver
	Dataplane   Dataplane
	Host        Host
	Offer       []netip.Prefix  // LANs behind this node, offered to the network
	Changes     <-chan struct{} // the host's addresses or routes have changed
	Observe     func(Event)     // called from the loop, must not block
	Lanes       *Lanes          // nil: none
	Socket      *LaneSocket     // below Transport, for lanes
	Seed        uint64          // for the jitter of retries
	Now         func() time.Time
}

// Timing of the loop.
const (
	// adoptLimit is how long a new session may take to say everything it must.
	adoptLimit = 8 * time.Second
	// refreshPeriod is how often the host is made to agree again, in case somebody flushed our routes.
	refreshPeriod = 30 * time.Second
	// replacedPause is how long a member stays away when another machine with the same keys has taken its place.
	replacedPause = 30 * time.Second
	// repeatPeriod is how often an unreachable gateway is mentioned again.
	repeatPeriod = time.Minute
)

// Member keeps a session with the gateway: it dials, takes over addresses and routes, notices when nothing comes back
// any more, and makes a new session before it gives up the old one.
type Member struct {
	cfg      MemberConfig
	backoff  *backoff
	messages chan memberMessage
	workers  sync.WaitGroup // every goroutine the loop starts
	done     chan struct{}  // closed when the loop has ended

	// Owned by the loop.
	current *memberLink
	pending *memberLink        // connected, has not said everything yet
	dialing context.CancelFunc // nil when no dial is under way
	retry   *time.Timer
	plan    HostPlan  // what the host was told last
	applied bool      // the host has agreed to a plan with addresses once
	told    time.Time // when the user was told last that the gateway does not answer
	topic   string    // what was said then, without the time of day; empty when there has been a session since
	// abandoned is when an attempt to get a session was given up last: the gateway may know it as the newest one.
	abandoned time.Time

	mu         sync.Mutex // guards what Status reads
	membership store.Membership
	status     MemberStatus
	link       *link
}

// memberLink is a link and what the gateway has said on it.
type memberLink struct {
	link
	assigned []netip.Prefix
	routes   []netip.Prefix
	hasRoute bool // a ROUTE_ADVERTISEMENT has come, perhaps an empty one
	info     mapMessage
	adopted  time.Time // when it became the current one
	suspect  bool      // nothing comes back
	lanes    *laneSession
	nudges   chan struct{}
}

// memberMessage is what goroutines tell the loop.
type memberMessage struct {
	link    *memberLink
	event   masque.Event
	dialed  bool // a dial has ended, with link or err
	ended   bool // the link has ended with err
	suspect bool // the peer does not answer
	late    bool // the link has had the time to say everything
	alive   bool // it answers again
	err     error
}

// NewMember makes a member that does nothing until Run.
func NewMember(cfg MemberConfig) *Member {
	cfg.Offer = unique(cfg.Offer)
	return &Member{
		cfg: cfg, backoff: newBackoff(cfg.Seed), messages: make(chan memberMessage, 16), done: make(chan struct{}),
		membership: cfg.Membership,
	}
}

// Run keeps the member connected until ctx ends, then says goodbye to the gateway and returns nil. It returns an error
// when coming back makes no sense: ErrRefused, or a host that cannot be set up in the first place.
func (m *Member) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	m.retry = time.NewTimer(0)
	defer m.closeUnclaimed()
	defer m.workers.Wait()
	defer close(m.done)
	defer cancel()
	defer m.retry.Stop()
	if err := m.guard(ctx); err != nil {
		return err
	}
	err := m.loop(ctx)
	for _, l := range []*memberLink{m.current, m.pending} {
		if l != nil {
			l.close(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		}
	}
	return err
}

// closeUnclaimed says goodbye on links that were made while the loop ended.
func (m *Member) closeUnclaimed() {
	for {
		select {
		case msg := <-m.messages:
			if msg.dialed && msg.link != nil {
				msg.link.close(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
			}
		default:
			return
		}
	}
}

// guard closes the way past the tunnel before the first session: packets for tunnel addresses go nowhere.
func (m *Member) guard(ctx context.Context) error {
	return m.applyHost(ctx, HostPlan{Tunnel: m.membership.Prefixes})
}

func (m *Member) loop(ctx context.Context) error {
	refresh := time.NewTicker(refreshPeriod)
	defer refresh.Stop()
	for {
		var err error
		select {
		case msg := <-m.messages:
			err = m.handle(ctx, msg)
		case <-m.cfg.Changes:
			m.networkChanged()
			err = m.applyHost(ctx, m.plan)
		case <-refresh.C:
			err = m.applyHost(ctx, m.plan)
		case <-m.retry.C:
			m.startDial(ctx)
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// networkChanged asks the gateway for a sign of life from where we are now, or tries at once to reach it.
func (m *Member) networkChanged() {
	if m.current != nil {
		m.current.nudge()
		if !m.current.suspect {
			return
		}
	}
	m.backoff.reset()
	m.retry.Reset(0)
}

func (m *Member) handle(ctx context.Context, msg memberMessage) error {
	switch {
	case msg.dialed:
		return m.dialed(ctx, msg.link, msg.err)
	case msg.ended:
		return m.ended(msg.link, msg.err)
	case (msg.suspect || msg.late) && msg.link == m.pending:
		msg.link.close(masque.CodeRestart, "no answer")
	case msg.suspect && msg.link == m.current && !msg.link.suspect:
		msg.link.suspect = true
		m.publish()
		m.observe(Event{Kind: EventNotice, Node: msg.link.info.Gateway, Text: "the gateway is silent"})
		m.retry.Reset(0)
	case msg.alive:
		// A dial under way goes on: the gateway may have taken its session for the newer one already.
		msg.link.suspect = false
		m.publish()
	case msg.event != nil:
		return m.said(ctx, msg.link, msg.event)
	}
	return nil
}

// startDial begins a dial unless one is under way or none is needed.
func (m *Member) startDial(ctx context.Context) {
	if m.dialing != nil || m.pending != nil || m.current != nil && !m.current.suspect {
		return
	}
	ctx, m.dialing = context.WithCancel(ctx)
	membership := m.membership
	if m.current == nil && time.Since(m.told) > repeatPeriod {
		m.observe(Event{Kind: EventDialing, Text: fmt.Sprint(membership.GatewayAddresses)})
	}
	m.workers.Go(func() {
		var l *memberLink
		err := recovered(func() (err error) {
			l, err = m.dial(ctx, membership)
			return err
		})
		if !m.tell(memberMessage{dialed: true, link: l, err: err}) && l != nil {
			l.close(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		}
	})
}

// dialed takes a new link over, or arranges the next attempt.
func (m *Member) dialed(ctx context.Context, l *memberLink, err error) error {
	m.dialing()
	m.dialing = nil
	if err == nil {
		m.pending = l
		m.workers.Go(func() { m.serve(ctx, l) })
		return nil
	}
	if refused := refusal(err); refused != nil {
		return refused
	}
	m.abandoned = time.Now()
	if ctx.Err() != nil || m.current != nil && !m.current.suspect {
		return nil
	}
	m.unreachable(err)
	m.retry.Reset(m.backoff.next())
	return nil
}

// unreachable tells the user why there is no session: when that is news, and once in a while.
func (m *Member) unreachable(err error) {
	if final := certificateError(err); final != nil {
		err = final
	}
	line := err.Error()
	news := m.setUnreachable(line, topicOf(err))
	if news || time.Since(m.told) > repeatPeriod {
		m.told = time.Now()
		m.observe(Event{Kind: EventDialFailed, Text: line})
	}
}

// topicOf is what an error is about. Its text may tell the present time, which does not make it news.
func topicOf(err error) string {
	if validity, ok := errors.AsType[*admit.ValidityError](err); ok {
		begun := !validity.Now.Before(validity.NotBefore)
		return fmt.Sprint("certificate ", validity.NotBefore, validity.NotAfter, begun)
	}
	return err.Error()
}

// setUnreachable makes a line the reason why there is no session, and reports whether its topic is a new one.
func (m *Member) setUnreachable(line, topic string) (news bool) {
	m.mu.Lock()
	m.status.Unreachable = line
	m.mu.Unlock()
	news, m.topic = m.topic != topic, topic
	return news
}

// refusal returns ErrRefused with the gateway's reason if the gateway, whose certificate was good, does not want us.
func refusal(err error) error {
	if status, ok := errors.AsType[*masque.StatusError](err); ok {
		switch status.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return ErrRefused
		}
	}
	if closedWith(err, CodeRevoked) {
		return ErrRefused
	}
	return nil
}

// closedWith reports whether the gateway has closed the connection with a code.
func closedWith(err error, code quic.ApplicationErrorCode) bool {
	closed, ok := errors.AsType[*quic.ApplicationError](err)
	return ok && closed.Remote && closed.ErrorCode == code
}

// ended forgets a link and begins anew if there is no other.
func (m *Member) ended(l *memberLink, err error) error {
	switch l {
	case m.pending:
		m.pending, m.abandoned = nil, time.Now()
		m.unreachable(fmt.Errorf("%s: the session ended before it began: %w", l.remote, err))
	case m.current:
		m.current = nil
		if time.Since(l.adopted) >= lastRetry {
			m.backoff.reset() // one that ends at once every time is not asked for at once every time
		}
		m.publish()
		m.observe(Event{Kind: EventDisconnected, Node: l.info.Gateway, Remote: l.remote, Err: err})
	default:
		return nil
	}
	if refused := refusal(err); refused != nil {
		return refused
	}
	if m.current != nil && !m.current.suspect {
		return nil
	}
	if closedWith(err, CodeReplaced) && !m.replacedItself() {
		m.outdone()
		m.retry.Reset(replacedPause)
		return nil
	}
	m.retry.Reset(m.backoff.next())
	return nil
}

// replacedItself reports whether the newer session that took the place of the last one may be of this member's own making:
// one that is being made, or one that was given up here after the gateway had begun it.
func (m *Member) replacedItself() bool {
	return m.pending != nil || m.dialing != nil || !m.abandoned.IsZero() && time.Since(m.abandoned) < adoptLimit
}

// outdone tells the user that another machine has taken this one's place.
func (m *Member) outdone() {
	const line = "another machine uses this node's keys: " +
		"if its state directory was copied, give one of the two an invite and a fresh --state"
	m.setUnreachable(line, line)
	m.observe(Event{Kind: EventNotice, Text: line})
}

// tell passes a message to the loop and reports whether the loop still runs.
func (m *Member) tell(msg memberMessage) bool {
	select {
	case m.messages <- msg:
		return true
	case <-m.done:
		return false
	}
}

func (m *Member) observe(e Event) { m.cfg.Observe(e) }

// publish lets Status see the current link.
func (m *Member) publish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.link, m.status.Silent = nil, false
	if m.current != nil {
		m.link, m.status.Silent = &m.current.link, m.current.suspect
		m.status.Unreachable, m.topic = "", ""
	}
}

// MemberStatus is a reading of a member.
type MemberStatus struct {
	Membership  store.Membership
	GatewayName string         // empty before the gateway has said it
	Routes      []netip.Prefix // what goes into the tunnel
	Granted     []netip.Prefix // LANs behind this node that others may reach
	Notices     []string
	Link        *LinkStatus // nil while not connected
	Silent      bool        // there is a session, but the gateway does not answer on it
	Unreachable string      // why the last attempt failed, while not connected
}

// Status may be called from any goroutine.
func (m *Member) Status() MemberStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Membership, s.Notices = m.membership, slices.Clone(s.Notices)
	if m.link != nil {
		s.Link = m.link.status()
	}
	return s
}

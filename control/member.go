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

	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/dataplane"
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
	Seed        uint64          // for the jitter of retries
	Now         func() time.Time
}

// Member keeps a session with the gateway: it dials, takes over addresses and routes, notices when nothing comes back
// any more, and makes a new session before it gives up the old one.
type Member struct {
	cfg      MemberConfig
	backoff  *backoff
	messages chan memberMessage
	retry    *time.Timer

	// Owned by the loop.
	current *memberLink
	dialing context.CancelFunc // nil when no dial is under way
	links   int                // link goroutines that have not ended

	mu          sync.Mutex // guards what Status reads
	membership  store.Membership
	granted     []netip.Prefix
	routes      []netip.Prefix
	link        *link
	silent      bool // the link's other end does not answer
	notices     []string
	gatewayName string
}

// memberLink is a link and what the gateway has said on it.
type memberLink struct {
	link
	assigned []netip.Prefix
	routes   []netip.Prefix
	hasRoute bool // a ROUTE_ADVERTISEMENT has come, perhaps an empty one
	info     mapMessage
	suspect  bool // nothing comes back
	nudges   chan struct{}
}

// memberMessage is what goroutines tell the loop.
type memberMessage struct {
	link    *memberLink
	event   masque.Event
	dialed  bool // a dial has ended, with link or err
	ended   bool // the link has ended with err
	suspect bool // the peer does not answer
	alive   bool // it answers again
	err     error
}

// NewMember makes a member that does nothing until Run.
func NewMember(cfg MemberConfig) *Member {
	return &Member{
		cfg: cfg, backoff: newBackoff(cfg.Seed), messages: make(chan memberMessage, 16), membership: cfg.Membership,
	}
}

// Run keeps the member connected until ctx ends, then says goodbye to the gateway and returns nil. It returns an error when
// coming back makes no sense: ErrRefused, a wrong gateway, or a host that cannot be set up.
func (m *Member) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.retry = time.NewTimer(time.Hour)
	m.retry.Stop()
	defer m.retry.Stop()
	m.startDial(ctx)
	err := m.loop(ctx)
	if m.current != nil {
		_ = m.current.session.Close() // the connection's end below says the same to a gateway that does not hear it
		m.current.close(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
	cancel()
	for m.links > 0 || m.dialing != nil {
		m.discard(<-m.messages)
	}
	return err
}

func (m *Member) loop(ctx context.Context) error {
	for {
		select {
		case msg := <-m.messages:
			if err := m.handle(ctx, msg); err != nil {
				return err
			}
		case <-m.cfg.Changes:
			if m.current != nil {
				m.current.nudge()
			} else if m.dialing == nil {
				m.retry.Reset(0)
			}
		case <-m.retry.C:
			m.startDial(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// discard handles messages that come while Run is ending.
func (m *Member) discard(msg memberMessage) {
	switch {
	case msg.dialed:
		m.dialing = nil
		if msg.link != nil {
			msg.link.close(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		}
	case msg.ended:
		m.links--
	}
}

func (m *Member) handle(ctx context.Context, msg memberMessage) error {
	switch {
	case msg.dialed:
		return m.dialed(ctx, msg.link, msg.err)
	case msg.ended:
		return m.ended(msg.link, msg.err)
	case msg.suspect:
		if msg.link == m.current && !msg.link.suspect {
			msg.link.suspect = true
			m.publish()
			m.observe(Event{Kind: EventNotice, Node: msg.link.info.Gateway, Text: "the gateway is silent"})
			m.retry.Reset(0)
		}
	case msg.alive:
		msg.link.suspect = false
		m.publish()
		if m.dialing != nil && msg.link == m.current {
			m.dialing()
		}
	default:
		return m.said(ctx, msg.link, msg.event)
	}
	return nil
}

// startDial begins a dial unless one is under way or none is needed.
func (m *Member) startDial(ctx context.Context) {
	if m.dialing != nil || m.current != nil && !m.current.suspect {
		return
	}
	ctx, m.dialing = context.WithCancel(ctx)
	membership := m.membership
	m.observe(Event{Kind: EventDialing, Text: fmt.Sprint(membership.GatewayAddresses)})
	go func() {
		l, err := m.dial(ctx, membership)
		m.messages <- memberMessage{dialed: true, link: l, err: err}
	}()
}

// dialed takes a new link over, or arranges the next attempt.
func (m *Member) dialed(ctx context.Context, l *memberLink, err error) error {
	m.dialing()
	m.dialing = nil
	if err != nil {
		if final := finalError(err); final != nil {
			return final
		}
		if ctx.Err() == nil && (m.current == nil || m.current.suspect) {
			m.observe(Event{Kind: EventDialFailed, Err: err})
			m.retry.Reset(m.backoff.next())
		}
		return nil
	}
	m.links++
	go m.serve(ctx, l)
	return nil
}

// finalError returns the error that makes further attempts pointless, in the user's words, or nil.
func finalError(err error) error {
	if status, ok := errors.AsType[*masque.StatusError](err); ok {
		switch status.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
			return ErrRefused
		}
	}
	if closed, ok := errors.AsType[*quic.ApplicationError](err); ok && closed.Remote && closed.ErrorCode == CodeRevoked {
		return ErrRefused
	}
	return certificateError(err)
}

// ended forgets a link and, if it was the current one, begins anew.
func (m *Member) ended(l *memberLink, err error) error {
	m.links--
	if l != m.current {
		return nil
	}
	m.current = nil
	m.publish()
	if final := finalError(err); final != nil {
		return final
	}
	m.observe(Event{Kind: EventDisconnected, Node: l.info.Gateway, Remote: l.remote, Err: err})
	m.retry.Reset(m.backoff.next())
	return nil
}

// said takes in what the gateway says on a link.
func (m *Member) said(ctx context.Context, l *memberLink, e masque.Event) error {
	switch e := e.(type) {
	case masque.AddressAssignment:
		l.assigned = e.Prefixes()
	case masque.RouteAdvertisement:
		routes, err := masque.RangesToPrefixes(e.Ranges, maxRoutePrefixes)
		if err != nil {
			m.observe(Event{Kind: EventNotice, Text: "routes of the gateway refused", Err: err})
			return nil
		}
		l.routes, l.hasRoute = routes, true
	case masque.PrivateCapsule:
		if e.Type != masque.CapsuleMap {
			return nil
		}
		info, err := decodeMapMessage(e.Payload)
		if err != nil {
			m.observe(Event{Kind: EventNotice, Err: err})
			return nil
		}
		l.info = info
		m.learn(info)
	default:
		return nil
	}
	// No ROUTE_ADVERTISEMENT yet means no packets yet.
	if len(l.assigned) == 0 || !l.hasRoute {
		return nil
	}
	return m.adopt(ctx, l)
}

// learn keeps what the gateway says about itself, so that the next start can use it.
func (m *Member) learn(info mapMessage) {
	updated := m.membership
	if len(info.Addresses) > 0 {
		updated.GatewayAddresses = newestFirst(info.Addresses, m.membership.GatewayAddresses)
	}
	if info.Node != "" {
		updated.Name = info.Node
	}
	if len(info.Prefixes) > 0 {
		updated.Prefixes = info.Prefixes
	}
	m.remember(updated)
	m.mu.Lock()
	m.gatewayName = info.Gateway
	m.mu.Unlock()
}

// newestFirst lists the addresses the gateway names now before older ones, without doubles and within bounds.
func newestFirst(now, before []string) []string {
	var out []string
	for _, a := range slices.Concat(now, before) {
		if len(out) < maxEndpoints && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// remember keeps a membership in memory and on disk, if it differs.
func (m *Member) remember(updated store.Membership) {
	before := m.membership
	if slices.Equal(updated.GatewayAddresses, before.GatewayAddresses) && updated.Name == before.Name &&
		slices.Equal(updated.Prefixes, before.Prefixes) && slices.Equal(updated.Addresses, before.Addresses) {
		return
	}
	m.mu.Lock()
	m.membership = updated
	m.mu.Unlock()
	if err := m.cfg.Save(updated); err != nil {
		m.observe(Event{Kind: EventNotice, Text: "membership not saved", Err: err})
	}
}

// adopt makes a link that has said everything the current one, and the host agree with what it said.
func (m *Member) adopt(ctx context.Context, l *memberLink) error {
	if m.current != l && m.current != nil && m.current.since.After(l.since) {
		return nil // a link that lost the race has woken up
	}
	if err := m.apply(ctx, l); err != nil {
		return err
	}
	if m.current == l {
		return nil
	}
	old := m.current
	m.current = l
	m.backoff.reset()
	m.retry.Stop()
	m.publish()
	go m.carry(l)
	if old != nil {
		old.close(CodeReplaced, "replaced by a newer session")
	}
	if len(m.cfg.Offer) > 0 {
		if err := l.session.AdvertiseRoutes(m.cfg.Offer); err != nil {
			m.observe(Event{Kind: EventNotice, Text: "routes not offered", Err: err})
		}
	}
	m.observe(Event{
		Kind: EventConnected, Node: l.info.Gateway, Remote: l.remote, Prefixes: l.assigned, Group: l.group,
		RTT: l.conn.ConnectionStats().SmoothedRTT,
	})
	return nil
}

// carry lends the link to the dataplane until one of them ends.
func (m *Member) carry(l *memberLink) {
	err := m.cfg.Dataplane.Attach(l.ctx, dataplane.PeerID(m.cfg.Membership.Gateway), carrier{l.session})
	l.cancel(fmt.Errorf("carry packets: %w", err))
}

// apply gives host and dataplane what the gateway has said on l.
func (m *Member) apply(ctx context.Context, l *memberLink) error {
	own := slices.Clone(l.assigned)
	granted := intersect(m.cfg.Offer, l.info.Granted)
	routes := without(l.routes, slices.Concat(own, m.cfg.Offer))
	plan := HostPlan{
		Addresses: own, Routes: routes, Granted: granted,
		Guards: without(m.membership.Prefixes, own), Tunnel: m.membership.Prefixes,
	}
	notices, err := m.cfg.Host.Apply(ctx, plan)
	if err != nil {
		return err
	}
	snapshot := dataplane.Snapshot{
		NICPrefixes: slices.Concat(own, granted),
		NICSources:  slices.Concat(own, granted),
		Peers:       []dataplane.Peer{{ID: dataplane.PeerID(m.cfg.Membership.Gateway), Prefixes: routes}},
	}
	var addresses []netip.Addr
	for _, p := range own {
		addresses = append(addresses, p.Addr())
	}
	snapshot.NICAddresses = addresses
	if err := m.cfg.Dataplane.Apply(snapshot); err != nil {
		return err
	}
	updated := m.membership
	updated.Addresses = addresses
	m.remember(updated)
	m.mu.Lock()
	routesChanged := !slices.Equal(m.routes, routes)
	grantedChanged := !slices.Equal(m.granted, granted)
	m.routes, m.granted, m.notices = routes, granted, notices
	m.mu.Unlock()
	if routesChanged {
		m.observe(Event{Kind: EventRoutes, Text: "through the tunnel", Prefixes: routes})
	}
	if grantedChanged && len(granted) > 0 {
		m.observe(Event{Kind: EventRoutes, Text: "our LAN is open to the network", Prefixes: granted})
	}
	for _, n := range notices {
		m.observe(Event{Kind: EventNotice, Text: n})
	}
	return nil
}

// intersect keeps what is in both lists.
func intersect(a, b []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(a), func(p netip.Prefix) bool { return !slices.Contains(b, p) })
}

// without removes the prefixes of b from a.
func without(a, b []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(a), func(p netip.Prefix) bool { return slices.Contains(b, p) })
}

func (m *Member) observe(e Event) { m.cfg.Observe(e) }

// publish lets Status see the current link.
func (m *Member) publish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.link, m.silent = nil, false
	if m.current != nil {
		m.link, m.silent = &m.current.link, m.current.suspect
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
}

// Status may be called from any goroutine.
func (m *Member) Status() MemberStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := MemberStatus{
		Membership: m.membership, GatewayName: m.gatewayName,
		Routes: m.routes, Granted: m.granted, Notices: slices.Clone(m.notices),
	}
	if m.link != nil {
		s.Link = m.link.status()
		s.Silent = m.silent
	}
	return s
}

package control

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/time/rate"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/dataplane"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// refusalPeriod is how often a refused stranger gets a line, so that strangers cannot fill the log.
const refusalPeriod = 10 * time.Second

// offerPeriod is how often a member may change the routes it offers, beyond offerBurst changes: each is written to disk.
const (
	offerPeriod = 5 * time.Second
	offerBurst  = 16
)

// maxRoutePrefixes bounds how many prefixes a peer's route advertisement may come to.
const maxRoutePrefixes = 4096

// GatewayConfig holds what a gateway needs for its whole life.
type GatewayConfig struct {
	Authority *admit.Authority
	Dataplane Dataplane
	Host      Host
	Grant     []netip.Prefix // LANs behind the gateway itself, approved at once
	Addresses []string       // HOST:PORT under which members can reach it, may change later
	Observe   func(Event)    // called from several goroutines, must not block
	Now       func() time.Time
	Lanes     *Lanes // nil: none
}

// Gateway admits nodes and routes between them.
type Gateway struct {
	cfg      GatewayConfig
	self     store.Node
	network  store.Network
	site     http.Handler
	messages chan gatewayMessage
	dirty    chan struct{} // nodes, routes or addresses changed
	ready    chan struct{} // closed when host and dataplane are set up
	done     chan struct{} // closed when the loop has ended
	carriers sync.WaitGroup

	refusals *rate.Limiter // lines about strangers

	mu        sync.Mutex // guards the rest, which other goroutines read or set
	links     map[identity.ID][]*gatewayLink
	addresses []string
	routes    []netip.Prefix
	granted   []netip.Prefix
	notices   []string
}

// gatewayLink is a member's session and what it was told last.
type gatewayLink struct {
	link
	node    store.Node
	byToken bool         // authenticated by bearer token, not by certificate
	lanes   *laneSession // nil for one by token
	renewAt time.Time    // when the certificate that the node has should be replaced; owned by the loop from begin on

	// Owned by the loop: what it has said and what it was told.
	offers     *rate.Limiter // changes of what it offers
	request    masque.AddressRequest
	offer      []netip.Prefix
	offerKnown bool
	exact      bool // it has offered in a map, which says exactly what the operator wrote
	chain      [][]byte
	routes     []netip.Prefix
	info       []byte
	told       bool // addresses, routes and map have been sent
	withoutV6  bool // the path is too small for IPv6
}

// gatewayMessage is what session goroutines tell the loop.
type gatewayMessage struct {
	link  *gatewayLink
	event masque.Event
	begun bool
	ended bool
	err   error
}

// principal is who is behind a CONNECT-IP request.
type principal struct {
	node    store.Node
	byToken bool
	expires time.Time // end of the certificate shown
	conn    *quic.Conn
	group   string
	remote  netip.AddrPort
}

// NewGateway makes a gateway that does nothing until Run.
func NewGateway(cfg GatewayConfig) (*Gateway, error) {
	network := cfg.Authority.Network()
	self, err := cfg.Authority.Node(network.Gateway.String())
	if err != nil {
		return nil, fmt.Errorf("find our own node: %w", err)
	}
	return &Gateway{
		cfg: cfg, self: self, network: network, site: newSite(),
		messages: make(chan gatewayMessage, 64), dirty: make(chan struct{}, 1),
		done: make(chan struct{}), ready: make(chan struct{}),
		links: make(map[identity.ID][]*gatewayLink), addresses: cfg.Addresses,
		refusals: rate.NewLimiter(rate.Every(refusalPeriod), 5),
	}, nil
}

// settle is how long the loop waits for more to come before it looks at everything again.
const settle = 5 * time.Millisecond

// Run keeps host, dataplane and members in agreement until ctx ends. Serve requests of Server only while it runs.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.carriers.Wait()
	defer g.closeUnclaimed()
	defer close(g.done)
	defer g.closeAll()
	if _, err := g.cfg.Authority.OfferRoutes(g.self.ID, g.cfg.Grant); err != nil {
		return fmt.Errorf("--advertise-routes: %w", err)
	}
	if err := g.reconcile(ctx); err != nil {
		return err
	}
	close(g.ready)
	g.observe(Event{Kind: EventListening})
	return g.loop(ctx)
}

func (g *Gateway) loop(ctx context.Context) error {
	refresh := time.NewTicker(refreshPeriod)
	defer refresh.Stop()
	settled := time.NewTimer(0)
	defer settled.Stop()
	// A look has been arranged. What comes until then does not put it off, or a herd could do so forever.
	due := true
	arrange := func(wait time.Duration) {
		if !due {
			due = true
			settled.Reset(wait)
		}
	}
	for {
		select {
		case msg := <-g.messages:
			if g.handle(msg) {
				arrange(settle)
			}
		case <-g.dirty:
			arrange(settle)
		case <-refresh.C:
			arrange(0)
		case <-settled.C:
			due = false
			// What worked at the start may fail now, when somebody else has changed the host: it is said, and
			// tried again.
			if err := g.reconcile(ctx); err != nil {
				g.notice("the host could not be set up as it should be: " + err.Error())
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Refresh makes the gateway look at the host again: its network has changed.
func (g *Gateway) Refresh() { g.changed() }

// notice shows a line in status until the host has been set up again, and tells it once.
func (g *Gateway) notice(line string) {
	g.mu.Lock()
	known := slices.Contains(g.notices, line)
	if !known {
		g.notices = append(g.notices, line)
	}
	g.mu.Unlock()
	if !known {
		g.observe(Event{Kind: EventNotice, Text: line})
	}
}

// Ready is closed when host and dataplane are set up.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// closeAll ends every session, and in order, because this process takes its lanes with it. Members come back by themselves.
func (g *Gateway) closeAll() {
	for _, l := range g.snapshotLinks() {
		l.close(quic.ApplicationErrorCode(http3.ErrCodeNoError), "the gateway ends")
	}
}

// closeUnclaimed does the same for sessions that began while the loop ended.
func (g *Gateway) closeUnclaimed() {
	for {
		select {
		case msg := <-g.messages:
			if msg.begun {
				msg.link.close(quic.ApplicationErrorCode(http3.ErrCodeNoError), "the gateway ends")
			}
		default:
			return
		}
	}
}

// changed asks the loop to look at everything again.
func (g *Gateway) changed() {
	select {
	case g.dirty <- struct{}{}:
	default: // it is about to
	}
}

// handle takes in what a session goroutine says and reports whether others have to be told.
func (g *Gateway) handle(msg gatewayMessage) bool {
	l := msg.link
	switch {
	case msg.begun:
		g.begin(l)
		return true
	case msg.ended:
		g.end(l, msg.err)
		return true
	}
	switch e := msg.event.(type) {
	case masque.AddressRequest:
		l.request = e
		if l.told && g.assign(l) != nil {
			l.close(masque.CodeRestart, "does not read what it is told")
		}
	case masque.RouteAdvertisement:
		offer, err := masque.RangesToPrefixes(e.Ranges, maxRoutePrefixes)
		return !l.exact && g.offered(l, offer, err)
	case masque.PrivateCapsule:
		if e.Type == masque.CapsuleMap {
			m, err := decodeMapMessage(e.Payload)
			l.exact = true
			return g.offered(l, m.Offer, err)
		}
	}
	return false
}

// begin registers a new session. The newest of a node counts; older ones end when it has taken over.
func (g *Gateway) begin(l *gatewayLink) {
	g.mu.Lock()
	g.links[l.node.ID] = append(slices.Clone(g.links[l.node.ID]), l)
	g.mu.Unlock()
	group := l.group
	if l.byToken {
		group += ", classical authentication"
	}
	g.observe(Event{
		Kind: EventConnected, Node: l.node.Name, Remote: l.remote, Prefixes: hostPrefixes(l.node.Addresses), Group: group,
	})
}

// retireOlder ends a node's sessions that are older than l.
func (g *Gateway) retireOlder(l *gatewayLink) {
	g.mu.Lock()
	links := slices.Clone(g.links[l.node.ID])
	g.mu.Unlock()
	for _, o := range links {
		if o == l {
			return
		}
		o.close(CodeReplaced, "replaced by a newer session of the same node")
	}
}

// end forgets a session, and what its node offered if it was the last one.
func (g *Gateway) end(l *gatewayLink, err error) {
	g.mu.Lock()
	left := slices.DeleteFunc(slices.Clone(g.links[l.node.ID]), func(o *gatewayLink) bool { return o == l })
	if g.links[l.node.ID] = left; len(left) == 0 {
		delete(g.links, l.node.ID)
	}
	g.mu.Unlock()
	if len(left) == 0 {
		g.observe(Event{Kind: EventDisconnected, Node: l.node.Name, Remote: l.remote, Err: err})
	}
}

// offered records the LANs that a member says it can reach, and reports whether they have changed.
func (g *Gateway) offered(l *gatewayLink, prefixes []netip.Prefix, err error) bool {
	if l.byToken || err == nil && l.offerKnown && slices.Equal(prefixes, l.offer) {
		return false // a stock client may say so, but nothing of ours would route there
	}
	if !l.offers.Allow() {
		l.close(masque.CodeRestart, "changes its routes too often")
		return false
	}
	var routes []store.Route
	if err == nil {
		routes, err = g.cfg.Authority.OfferRoutes(l.node.ID, prefixes)
	}
	if err != nil {
		g.observe(Event{Kind: EventNotice, Node: l.node.Name, Text: "routes refused", Err: err})
		return false
	}
	l.offer, l.offerKnown = prefixes, true
	var waiting []netip.Prefix
	for _, r := range routes {
		if !r.Offered.IsZero() && r.Approved.IsZero() {
			waiting = append(waiting, r.Prefix)
		}
	}
	if len(waiting) > 0 {
		g.observe(Event{
			Kind: EventRoutes, Node: l.node.Name, Prefixes: waiting,
			Text: "offered, waits for `aetherd routes approve " + l.node.Name + " PREFIX`",
		})
	}
	return true
}

// hostPrefixes makes /32 and /128 prefixes of addresses.
func hostPrefixes(addresses []netip.Addr) []netip.Prefix {
	out := make([]netip.Prefix, len(addresses))
	for i, a := range addresses {
		out[i] = netip.PrefixFrom(a, a.BitLen())
	}
	return out
}

func (g *Gateway) observe(e Event) { g.cfg.Observe(e) }

func (g *Gateway) snapshotLinks() []*gatewayLink {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []*gatewayLink
	for _, links := range g.links {
		out = append(out, links...)
	}
	return out
}

// SetAddresses tells the gateway, and through it the members, where it can be reached now.
func (g *Gateway) SetAddresses(addresses []string) {
	g.mu.Lock()
	same := slices.Equal(g.addresses, addresses)
	g.addresses = slices.Clone(addresses)
	g.mu.Unlock()
	if !same {
		g.changed()
	}
}

// Addresses returns where the gateway can be reached.
func (g *Gateway) Addresses() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.addresses)
}

// Revoke ends a node's admission and its sessions.
func (g *Gateway) Revoke(name string) error {
	node, err := g.cfg.Authority.Revoke(name)
	if err != nil {
		return err
	}
	g.mu.Lock()
	links := slices.Clone(g.links[node.ID])
	g.mu.Unlock()
	g.cfg.Lanes.drop(node.ID, lane.ReasonRevoked)
	for _, l := range links {
		l.close(CodeRevoked, "revoked")
	}
	g.changed()
	g.observe(Event{Kind: EventRevoked, Node: node.Name})
	return nil
}

// Approve lets packets follow a route behind a node.
func (g *Gateway) Approve(name string, prefix netip.Prefix) error {
	if _, err := g.cfg.Authority.ApproveRoute(name, prefix); err != nil {
		return err
	}
	g.changed()
	g.observe(Event{Kind: EventRoutes, Node: name, Prefixes: []netip.Prefix{prefix}, Text: "approved"})
	return nil
}

// NodeStatus is a node and its session, if it has one.
type NodeStatus struct {
	store.Node
	Link    *LinkStatus // nil while not connected
	ByToken bool        // the session is authenticated by bearer token
}

// Nodes returns all nodes by name, the gateway and revoked ones included.
func (g *Gateway) Nodes() ([]NodeStatus, error) {
	nodes, err := g.cfg.Authority.Nodes()
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]NodeStatus, len(nodes))
	for i, n := range nodes {
		out[i].Node = n
		if links := g.links[n.ID]; len(links) > 0 {
			newest := links[len(links)-1]
			out[i].Link, out[i].ByToken = newest.status(), newest.byToken
		}
	}
	return out, nil
}

// RouteStatus is a subnet behind a node.
type RouteStatus struct {
	store.Route
	NodeName string
	Active   bool // packets follow it now
}

// Routes returns all routes that are offered or approved.
func (g *Gateway) Routes() ([]RouteStatus, error) {
	routes, err := g.cfg.Authority.Routes()
	if err != nil {
		return nil, err
	}
	nodes, err := g.cfg.Authority.Nodes()
	if err != nil {
		return nil, err
	}
	names := make(map[identity.ID]string, len(nodes))
	for _, n := range nodes {
		names[n.ID] = n.Name
	}
	out := make([]RouteStatus, len(routes))
	for i, r := range routes {
		out[i] = RouteStatus{Route: r, NodeName: names[r.Node], Active: r.InForce() && g.present(r.Node)}
	}
	return out, nil
}

// present reports whether a node can take packets: ourselves, or connected.
func (g *Gateway) present(id identity.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return id == g.self.ID || len(g.links[id]) > 0
}

// GatewayStatus is a reading of a gateway.
type GatewayStatus struct {
	Self    store.Node
	Network store.Network
	Routes  []netip.Prefix // what goes into the tunnel
	Granted []netip.Prefix // LANs behind the gateway
	Notices []string
}

// Status may be called from any goroutine.
func (g *Gateway) Status() GatewayStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	return GatewayStatus{
		Self: g.self, Network: g.network, Routes: g.routes, Granted: g.granted, Notices: slices.Clone(g.notices),
	}
}

// startCarrying lends a session to the dataplane until one of them ends.
func (g *Gateway) startCarrying(l *gatewayLink) {
	g.carriers.Go(func() {
		err := recovered(func() error {
			return g.cfg.Dataplane.Attach(l.ctx, dataplane.PeerID(l.node.ID), carrier{l.session})
		})
		l.cancel(fmt.Errorf("carry packets: %w", err))
	})
}

package control

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/crypto/token"
	"github.com/aethertunnel/aethertunnel/dataplane"
)

// deadline is how long a test waits for what must happen; reaching it is a failure.
const deadline = 20 * time.Second

// fakeHost remembers the newest plan.
type fakeHost struct {
	mu      sync.Mutex
	plan    HostPlan
	applied chan struct{} // one token per change
	refuse  error
	near    []netip.Prefix // LANs that the host is connected to
}

func newFakeHost() *fakeHost { return &fakeHost{applied: make(chan struct{}, 1)} }

func (h *fakeHost) Apply(_ context.Context, p HostPlan) (HostReport, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.plan = p
	select {
	case h.applied <- struct{}{}:
	default:
	}
	return HostReport{Routes: without(p.Routes, h.near)}, h.refuse
}

// await waits until the newest plan satisfies ok.
func (h *fakeHost) await(t *testing.T, what string, ok func(HostPlan) bool) HostPlan {
	t.Helper()
	timeout := time.After(deadline)
	for {
		h.mu.Lock()
		p := h.plan
		h.mu.Unlock()
		if ok(p) {
			return p
		}
		select {
		case <-h.applied:
		case <-timeout:
			t.Fatalf("%s: the newest plan is %+v", what, p)
		}
	}
}

// fakeDataplane remembers the newest snapshot and holds carriers without using them.
type fakeDataplane struct {
	mu       sync.Mutex
	snapshot dataplane.Snapshot
}

func (d *fakeDataplane) Apply(s dataplane.Snapshot) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.snapshot = s
	return nil
}

func (d *fakeDataplane) Attach(ctx context.Context, _ dataplane.PeerID, _ dataplane.Carrier) error {
	<-ctx.Done()
	return ctx.Err()
}

func (d *fakeDataplane) peers() []dataplane.Peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.snapshot.Peers
}

// events collects what a node says.
type events struct {
	mu   sync.Mutex
	list []Event
	more chan struct{}
}

func newEvents() *events { return &events{more: make(chan struct{}, 1)} }

func (e *events) add(v Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, v)
	select {
	case e.more <- struct{}{}:
	default:
	}
}

func (e *events) count(k EventKind) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, v := range e.list {
		if v.Kind == k {
			n++
		}
	}
	return n
}

// await waits until an event of the kind has come n times.
func (e *events) await(t *testing.T, k EventKind, n int) {
	t.Helper()
	timeout := time.After(deadline)
	for e.count(k) < n {
		select {
		case <-e.more:
		case <-timeout:
			e.mu.Lock()
			defer e.mu.Unlock()
			t.Fatalf("no %d events %q among %v", n, k, e.list)
		}
	}
}

// testGateway is a gateway on loopback QUIC.
type testGateway struct {
	gateway   *Gateway
	authority *admit.Authority
	key       *identity.Private
	host      *fakeHost
	data      *fakeDataplane
	events    *events
	address   string
	clock     atomic.Int64 // nanoseconds by which the gateway's clock is ahead
	stop      func()
}

func (g *testGateway) now() time.Time { return time.Now().Add(time.Duration(g.clock.Load())) }

func newKey(t *testing.T) *identity.Private {
	t.Helper()
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// newTestGateway makes a network and starts its gateway.
func newTestGateway(t *testing.T, grant ...netip.Prefix) *testGateway {
	t.Helper()
	g := &testGateway{key: newKey(t)}
	var err error
	g.authority, err = admit.CreateNetwork(newStore(t), admit.Config{Random: rand.Reader, Now: g.now}, admit.NetworkParams{
		Name: "home", Gateway: g.key.Public(), GatewayName: "router", Prefixes: prefixes("10.77.0.0/24", "fd77::/64"),
	})
	if err != nil {
		t.Fatal(err)
	}
	g.start(t, "127.0.0.1:0", grant...)
	t.Cleanup(func() { g.stop() })
	return g
}

// start runs the gateway on an address; stop ends it in order.
func (g *testGateway) start(t *testing.T, address string, grant ...netip.Prefix) {
	t.Helper()
	g.host, g.data, g.events = newFakeHost(), &fakeDataplane{}, newEvents()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	g.address = conn.LocalAddr().String()
	g.gateway, err = NewGateway(GatewayConfig{
		Authority: g.authority, Dataplane: g.data, Host: g.host, Grant: grant,
		Addresses: []string{g.address}, Observe: g.events.add, Now: g.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := g.authority.GatewayChain(nil)
	if err != nil {
		t.Fatal(err)
	}
	certificate := tls.Certificate{Certificate: chain, PrivateKey: g.key.Signer()}
	transport := &quic.Transport{Conn: conn, ConnectionIDLength: 8}
	listener, err := transport.ListenEarly(GatewayTLS(certificate, masque.RequireHybrid), masque.QUICConfig(1320))
	if err != nil {
		t.Fatal(err)
	}
	server, err := g.gateway.Server()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := g.gateway.Run(ctx); err != nil {
			t.Errorf("gateway: %v", err)
		}
	})
	running.Go(func() { _ = server.ServeListener(listener) })
	<-g.gateway.Ready()
	g.stop = sync.OnceFunc(func() {
		cancel()
		<-g.gateway.done
		_ = listener.Close()
		_ = server.Close()
		running.Wait()
		_ = transport.Close()
		_ = conn.Close()
	})
}

func (g *testGateway) invite(t *testing.T, o admit.InviteOptions) token.Invite {
	t.Helper()
	if o.Uses == 0 {
		o.Uses = 1
	}
	if o.TTL == 0 {
		o.TTL = time.Hour
	}
	secret, _, err := g.authority.Invite(o)
	if err != nil {
		t.Fatal(err)
	}
	return token.Invite{Gateway: g.key.ID(), Secret: secret, Addresses: []string{g.address}}
}

// newTransport is a client's socket.
func newTransport(t *testing.T) *quic.Transport {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	transport := &quic.Transport{Conn: conn, ConnectionIDLength: 8}
	t.Cleanup(func() {
		_ = transport.Close()
		_ = conn.Close()
	})
	return transport
}

func (g *testGateway) join(t *testing.T, key *identity.Private, invite token.Invite, name string) (store.Membership, error) {
	t.Helper()
	return Join(t.Context(), JoinConfig{
		Key: key, Invite: invite, Name: name, Transport: newTransport(t), Resolver: fakeResolver{}, Now: g.now,
	})
}

// testMember is a member of a testGateway.
type testMember struct {
	member *Member
	key    *identity.Private
	host   *fakeHost
	data   *fakeDataplane
	events *events
	ended  chan error
	stop   func()
}

// newTestMember joins and starts a member.
func (g *testGateway) newTestMember(t *testing.T, name string, o admit.InviteOptions, offer ...netip.Prefix) *testMember {
	t.Helper()
	m := &testMember{
		key: newKey(t), host: newFakeHost(), data: &fakeDataplane{}, events: newEvents(), ended: make(chan error, 1),
	}
	membership, err := g.join(t, m.key, g.invite(t, o), name)
	if err != nil {
		t.Fatal(err)
	}
	g.run(t, m, membership, offer...)
	m.events.await(t, EventConnected, 1)
	return m
}

// run starts a member with what it remembers; m.stop ends it.
func (g *testGateway) run(t *testing.T, m *testMember, membership store.Membership, offer ...netip.Prefix) {
	t.Helper()
	m.member = NewMember(MemberConfig{
		Key: m.key, Membership: membership, Save: func(store.Membership) error { return nil },
		Transport: newTransport(t), Resolver: fakeResolver{}, Dataplane: m.data, Host: m.host, Offer: offer,
		Observe: m.events.add, Now: g.now,
	})
	ctx, cancel := context.WithCancel(context.Background())
	member, ended := m.member, m.ended
	go func() { ended <- member.Run(ctx) }()
	var once sync.Once
	m.stop = func() {
		once.Do(func() {
			cancel()
			<-m.ended
		})
	}
	t.Cleanup(m.stop)
}

func has(p netip.Prefix) func(HostPlan) bool {
	return func(plan HostPlan) bool { return slices.Contains(plan.Routes, p) }
}

func hasNot(p netip.Prefix) func(HostPlan) bool {
	return func(plan HostPlan) bool { return !slices.Contains(plan.Routes, p) }
}

func mustUDP(t *testing.T, address string) *net.UDPAddr {
	t.Helper()
	return net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address))
}

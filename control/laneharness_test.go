package control

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/dataplane"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
	"github.com/aethertunnel/aethertunnel/tun"
)

// laneNode is all of a node but its host: a dataplane on a NIC in memory and a real socket, with QUIC and lanes on it.
type laneNode struct {
	t         *testing.T
	engine    *dataplane.Engine
	nic       *tun.Memory
	conn      *udp.Conn
	socket    *LaneSocket // the same
	transport *quic.Transport
	lanes     *Lanes
	ahead     atomic.Int64 // nanoseconds by which the clock of lanes is ahead
	frozen    atomic.Int64 // what it stands at, plus ahead; 0 while it goes
	events    *events

	mu      sync.Mutex
	notices []error

	end      context.CancelFunc // of the lanes
	lanesRun chan struct{}      // closed when they have ended
	stop     func()
}

// laneIDs are the connection IDs of QUIC, from the same source as those of lanes.
type laneIDs struct{ from *lane.IDGenerator }

func (i laneIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	id := i.from.Next(0)
	return quic.ConnectionIDFromBytes(id[:]), nil
}

func (laneIDs) ConnectionIDLen() int { return lane.ConnectionIDBytes }

// newLaneNode starts what is below control, on an address.
func newLaneNode(t *testing.T, id identity.ID, address string) *laneNode {
	t.Helper()
	n := &laneNode{
		t: t, engine: dataplane.New(), nic: tun.NewMemory("mem0"), events: newEvents(), lanesRun: make(chan struct{}),
	}
	var err error
	n.conn, err = udp.Open(t.Context(), udp.Config{Address: netip.MustParseAddrPort(address)})
	if err != nil {
		t.Fatal(err)
	}
	ids, err := lane.NewIDGenerator(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	reset := quic.StatelessResetKey(id) // the same after a crash
	n.socket = &LaneSocket{Conn: n.conn, Resetter: lane.NewResetter(reset)}
	start := time.Now()
	n.lanes = NewLanes(LanesConfig{
		Dataplane: n.engine, Local: id, Suites: aead.Preferred(aead.Policy{}), IDs: ids,
		Notice: n.notice,
		Nanos: func() int64 {
			if at := n.frozen.Load(); at != 0 {
				return at + n.ahead.Load()
			}
			return int64(time.Since(start)) + n.ahead.Load()
		},
	})
	n.transport = &quic.Transport{
		Conn: n.conn.QUIC(), ConnectionIDGenerator: laneIDs{ids}, StatelessResetKey: &reset,
		ConnContext: func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
			return WithSocket(ctx, n.socket), nil
		},
	}
	n.run()
	return n
}

func (n *laneNode) run() {
	ctx, cancel := context.WithCancel(context.Background())
	lanesCtx, endLanes := context.WithCancel(ctx)
	n.end = endLanes
	var parts sync.WaitGroup
	part := func(what string, run func() error) {
		parts.Go(func() {
			if err := run(); err != nil {
				n.t.Errorf("%s: %v", what, err)
			}
		})
	}
	part("dataplane", func() error { return n.engine.Run(ctx, n.nic) })
	part("receive", func() error { return n.engine.Receive(ctx, n.conn) })
	part("lanes", func() error {
		defer close(n.lanesRun)
		return n.lanes.Run(lanesCtx)
	})
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-n.lanesRun
		if err := errors.Join(n.transport.Close(), n.nic.Close(), n.conn.Close()); err != nil {
			n.t.Error(err)
		}
		parts.Wait()
	})
	n.t.Cleanup(func() { n.stop() })
}

func (n *laneNode) notice(_ string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.notices = append(n.notices, err)
}

// freeze stops the clock of lanes, so that how busy the machine is does not matter.
func (n *laneNode) freeze() { n.frozen.Store(n.lanes.cfg.Nanos() - n.ahead.Load()) }

// quiet fails the test if the lanes had something to complain about.
func (n *laneNode) quiet() {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.notices) > 0 {
		n.t.Errorf("notices: %v", n.notices)
	}
}

// party reads what there is of lanes with a peer; look is not called if there is nothing.
func (n *laneNode) party(peer identity.ID, look func(*laneParty)) {
	n.lanes.mu.Lock()
	defer n.lanes.mu.Unlock()
	if p := n.lanes.parties[peer]; p != nil {
		look(p)
	}
}

// carries reports whether packets for a peer go over a lane.
func (n *laneNode) carries(peer identity.ID) bool {
	return n.engine.Stats().Peers[dataplane.PeerID(peer)].Lane != nil
}

// laneIs returns the name of the newest lane with a peer, if it exists and is bound as told.
func (n *laneNode) laneIs(peer identity.ID, bound bool) (id lane.ID, ok bool) {
	n.party(peer, func(p *laneParty) {
		if c := p.current; c != nil && c.n.Live() && (c.n.Bound() != nil) == bound {
			id, ok = c.n.ID()
		}
	})
	return id, ok
}

// epoch is that of the newest lane with a peer.
func (n *laneNode) epoch(peer identity.ID) (epoch uint32) {
	n.party(peer, func(p *laneParty) {
		if c := p.current; c != nil && c.lane != nil {
			epoch, _ = c.lane.Epoch()
		}
	})
	return epoch
}

// await waits for a state that must come about.
func await(t *testing.T, what string, reached func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(deadline); !reached(); <-tick.C {
		if time.Now().After(until) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// laneGateway is a gateway with lanes.
type laneGateway struct {
	*testGateway
	*laneNode
	address string // of both, the network's
}

// laneMember is a member with lanes.
type laneMember struct {
	*laneNode
	key        *identity.Private
	membership store.Membership
	member     *Member
	dial       *gate
	leave      func()     // ends it as `down` does
	ended      chan error // what it ended with
}

// gate is a transport whose dials can be held up.
type gate struct {
	Transport
	mu   sync.Mutex
	open chan struct{} // closed while dials pass
}

func newGate(t Transport) *gate {
	g := &gate{Transport: t, open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gate) Dial(ctx context.Context, a net.Addr, tlsConf *tls.Config, conf *quic.Config) (*quic.Conn, error) {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
		return g.Transport.Dial(ctx, a, tlsConf, conf)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// shut holds dials up until the returned function is called.
func (g *gate) shut() (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	held := make(chan struct{})
	g.open = held
	return sync.OnceFunc(func() { close(held) })
}

// newLaneGateway makes a network and starts its gateway.
func newLaneGateway(t *testing.T) *laneGateway {
	t.Helper()
	g := &laneGateway{testGateway: &testGateway{key: newKey(t)}}
	var err error
	g.authority, err = admit.CreateNetwork(newStore(t), admit.Config{Random: rand.Reader, Now: g.now}, admit.NetworkParams{
		Name: "home", Gateway: g.key.Public(), GatewayName: "router", Prefixes: prefixes("10.77.0.0/24", "fd77::/64"),
	})
	if err != nil {
		t.Fatal(err)
	}
	g.up("127.0.0.1:0", t)
	return g
}

// up starts the gateway's process, so to speak; down ends it.
func (g *laneGateway) up(address string, t *testing.T) {
	t.Helper()
	g.laneNode = newLaneNode(t, g.key.ID(), address)
	g.address = g.conn.LocalAddr().String()
	g.testGateway.address = g.address
	var err error
	g.gateway, err = NewGateway(GatewayConfig{
		Authority: g.authority, Dataplane: g.engine, Host: newFakeHost(), Addresses: []string{g.address},
		Observe: g.laneNode.events.add, Now: g.now, Lanes: g.lanes,
	})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := g.authority.GatewayChain(nil)
	if err != nil {
		t.Fatal(err)
	}
	certificate := tls.Certificate{Certificate: chain, PrivateKey: g.key.Signer()}
	listener, err := g.transport.ListenEarly(GatewayTLS(certificate, masque.RequireHybrid), masque.QUICConfig(1320))
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
	running.Go(func() { _ = server.ServeListener(listener) }) // it ends with the listener
	<-g.gateway.Ready()
	gateway, below := g.gateway, g.laneNode
	stopBelow := below.stop
	below.stop = sync.OnceFunc(func() {
		cancel()
		<-gateway.done
		_ = listener.Close() // both are over, whatever they say
		_ = server.Close()
		running.Wait()
		stopBelow()
	})
}

// down ends the gateway as a daemon does.
func (g *laneGateway) down() { g.laneNode.stop() }

// crash ends the gateway without a word to anybody.
func (g *laneGateway) crash() {
	_ = g.conn.Close() // nothing leaves any more
	g.laneNode.stop()
}

// newLaneMember joins and starts a member, and waits until packets pass over a lane at both ends.
func (g *laneGateway) newLaneMember(t *testing.T, name string) *laneMember {
	t.Helper()
	m := &laneMember{key: newKey(t)}
	membership, err := g.join(t, m.key, g.invite(t, admit.InviteOptions{}), name)
	if err != nil {
		t.Fatal(err)
	}
	m.membership = membership
	g.start(t, m)
	g.joined(m)
	return m
}

// start runs a member.
func (g *laneGateway) start(t *testing.T, m *laneMember) {
	t.Helper()
	m.laneNode = newLaneNode(t, m.key.ID(), "127.0.0.1:0")
	m.dial = newGate(m.transport)
	m.member = NewMember(MemberConfig{
		Key: m.key, Membership: m.membership, Save: func(store.Membership) error { return nil },
		Transport: m.dial, Resolver: fakeResolver{}, Dataplane: m.engine, Host: newFakeHost(),
		Observe: m.events.add, Now: g.now, Lanes: m.lanes, Socket: m.socket,
	})
	ctx, cancel := context.WithCancel(context.Background())
	m.ended = make(chan error, 1)
	over := make(chan struct{})
	go func() {
		defer close(over)
		m.ended <- m.member.Run(ctx)
	}()
	stopBelow := m.stop
	m.leave = sync.OnceFunc(func() {
		cancel()
		<-over
	})
	m.stop = func() {
		m.leave()
		stopBelow()
	}
}

// joined waits until a lane carries the packets of both ends, and returns its name.
func (g *laneGateway) joined(m *laneMember) lane.ID {
	m.t.Helper()
	var id lane.ID
	await(m.t, "a lane at both ends", func() bool {
		at, ok := g.laneIs(m.key.ID(), true)
		there, too := m.laneIs(g.key.ID(), true)
		id = at
		return ok && too && at == there && g.carries(m.key.ID()) && m.carries(g.key.ID())
	})
	return id
}

// session is the member's current one.
func (m *laneMember) session() *link {
	m.member.mu.Lock()
	defer m.member.mu.Unlock()
	return m.member.link
}

// numbered is a UDP packet with a number.
func numbered(from, to netip.Addr, number uint32) []byte {
	p := make([]byte, 20+8+4)
	p[0], p[8], p[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	binary.BigEndian.PutUint16(p[20:], 4000)
	binary.BigEndian.PutUint16(p[22:], 5000)
	binary.BigEndian.PutUint16(p[24:], 12) // no checksum
	binary.BigEndian.PutUint32(p[28:], number)
	return p
}

var gatewayTunnel4 = netip.MustParseAddr("10.77.0.1")

// flow sends numbered packets between two nodes, one at a time, so that none is lost for want of room.
type flow struct {
	t        *testing.T
	from, to *laneNode
	src, dst netip.Addr
	next     uint32
}

// up is a flow from a member to its gateway, and down one the other way.
func (g *laneGateway) flowUp(m *laneMember) *flow {
	return &flow{t: m.t, from: m.laneNode, to: g.laneNode, src: m.membership.Addresses[0], dst: gatewayTunnel4}
}

func (g *laneGateway) flowDown(m *laneMember) *flow {
	return &flow{t: m.t, from: g.laneNode, to: m.laneNode, src: gatewayTunnel4, dst: m.membership.Addresses[0]}
}

// passes sends packets and fails the test unless each arrives, before the next is sent.
func (f *flow) passes(packets int) {
	f.t.Helper()
	for range packets {
		if err := f.from.nic.Inject(numbered(f.src, f.dst, f.next)); err != nil {
			f.t.Fatal(err)
		}
		select {
		case p := <-f.to.nic.Packets():
			if got := binary.BigEndian.Uint32(p.Data[28:]); got != f.next {
				f.t.Fatalf("packet %d came, want %d", got, f.next)
			}
		case <-time.After(deadline):
			f.t.Fatalf("packet %d was lost; dropped: %v, %v", f.next, f.from.engine.Stats().Drops, f.to.engine.Stats().Drops)
		}
		f.next++
	}
}

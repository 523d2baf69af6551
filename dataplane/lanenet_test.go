package dataplane

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/kem"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
	"github.com/aethertunnel/aethertunnel/tun"
)

// allOffloads are those of a Linux NIC.
var allOffloads = tun.Offloads{VirtioHeader: true, TCP: true, UDP: true}

var (
	loopback4 = netip.MustParseAddrPort("127.0.0.1:0")
	loopback6 = netip.MustParseAddrPort("[::1]:0")
)

// hang is how long a test waits for what must come before it gives up instead of hanging.
const hang = 10 * time.Second

// laneNode is a running engine with a socket on loopback. Real sockets do not work in synctest bubbles.
type laneNode struct {
	t      testing.TB
	engine *Engine
	nic    *tun.Memory
	conn   *udp.Conn
}

// startLanes runs an engine and serves its socket until the test ends.
func startLanes(t testing.TB, s Snapshot, o tun.Offloads, bind netip.AddrPort) *laneNode {
	t.Helper()
	nic := tun.NewMemoryWithOffloads("mem0", o)
	n := startLanesOn(t, s, nic, openConn(t, bind))
	n.nic = nic
	return n
}

func startLanesOn(t testing.TB, s Snapshot, nic tun.Device, conn *udp.Conn) *laneNode {
	t.Helper()
	n := &laneNode{t: t, engine: New(), conn: conn}
	if err := n.engine.Apply(s); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := n.engine.Run(ctx, nic); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for n.engine.nic.Load() == nil { // before that a lane has nowhere to bring packets to
		runtime.Gosched()
	}
	parts.Go(func() {
		if err := n.engine.Receive(ctx, conn); err != nil {
			t.Errorf("Receive: %v", err)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("dropped %v, socket %+v", n.drops(), conn.Stats())
		}
		cancel()
		if err := errors.Join(nic.Close(), conn.Close()); err != nil {
			t.Error(err)
		}
		parts.Wait()
	})
	return n
}

func openConn(t testing.TB, bind netip.AddrPort) *udp.Conn {
	t.Helper()
	conn, err := udp.Open(context.Background(), udp.Config{Address: bind})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// secrets are what the two ends of a lane agree on.
type secrets struct {
	t     testing.TB
	suite aead.Suite
	chain []*keyschedule.Chain // by epoch
	ids   *lane.IDGenerator
}

func newSecrets(t testing.TB) *secrets {
	t.Helper()
	s := &secrets{t: t, suite: aead.AES256GCM}
	chain, err := keyschedule.New(&keyschedule.Exporter{1, 2, 3}, s.shared())
	if err != nil {
		t.Fatal(err)
	}
	s.chain = append(s.chain, chain)
	if s.ids, err = lane.NewIDGenerator(rand.Reader); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *secrets) shared() kem.Shared {
	s.t.Helper()
	key, err := kem.Generate()
	if err != nil {
		s.t.Fatal(err)
	}
	_, shared, err := kem.Encapsulate(key.Public())
	if err != nil {
		s.t.Fatal(err)
	}
	return shared
}

// key is that of an epoch which the end with a role seals with.
func (s *secrets) key(epoch uint32, sealer keyschedule.Role) *aead.PacketKey {
	s.t.Helper()
	k, err := s.chain[epoch].PacketKey(0, sealer, s.suite)
	if err != nil {
		s.t.Fatal(err)
	}
	return k
}

func (s *secrets) header(sealer keyschedule.Role) *aead.HeaderKey {
	s.t.Helper()
	k, err := s.chain[0].HeaderKey(0, sealer, s.suite)
	if err != nil {
		s.t.Fatal(err)
	}
	return k
}

const (
	testQuarterStreamID = 5
	clientPartial       = 2 // what the client takes packets with partial checksums in
	serverPartial       = 1
	// testPacketBytes is the longest lane packet of the tests: what an IPv4 path of 1,500 bytes carries.
	testPacketBytes = 1472
	// loopbackIndex is that of lo in every network namespace.
	loopbackIndex = 1
)

// issuedIDs are the connection IDs of a node of which one is the first.
func issuedIDs(first lane.ConnectionID) (all [lane.ConnectionIDs]lane.IssuedID) {
	for i := range all {
		id := first
		id[1] ^= byte(i)
		all[i] = lane.IssuedID{Sequence: uint32(i), ID: id, Token: lane.ResetToken(slices.Concat(id[:], id[:]))}
	}
	return all
}

// params are those of one end. peerID is the connection ID that the other end has chosen.
func (s *secrets) params(side keyschedule.Role, peerID lane.ConnectionID, partial bool) *lane.Params {
	p := &lane.Params{
		Side: side, Suite: s.suite, QuarterStreamID: testQuarterStreamID,
		HeaderOpen: s.header(side.Peer()), HeaderSeal: s.header(side),
		SendBytes: 2000, TakeBytes: 2000, PeerIDs: issuedIDs(peerID),
	}
	if partial {
		p.Take = []lane.Context{{ID: clientPartial, Kind: lane.ContextPartialChecksum}}
		p.Send = []lane.Context{{ID: serverPartial, Kind: lane.ContextPartialChecksum}}
		if side == keyschedule.Server {
			p.Take, p.Send = p.Send, p.Take
		}
	}
	return p
}

// laneEnd is one end of a lane in an engine.
type laneEnd struct {
	*Lane
	opened chan uint32   // epochs that it was told of
	failed chan struct{} // closed when it is told that it has failed
	id     lane.ConnectionID
}

// laneConfig says what the lanes of a test are like. Zero fields mean the usual.
type laneConfig struct {
	noPartial   bool
	packetBytes int
}

// newEnd makes a lane at one end, with keys of epoch 0, which does not seal yet.
func (s *secrets) newEnd(n *laneNode, peer PeerID, side keyschedule.Role, own, peerID lane.ConnectionID,
	to netip.AddrPort, cfg laneConfig,
) *laneEnd {
	s.t.Helper()
	from, index := netip.Addr{}, uint32(0)
	if side == keyschedule.Server { // it answers from where it was asked
		from, index = n.conn.LocalAddr().Addr(), loopbackIndex
	}
	destination, err := n.conn.NewDestination(to, from, index)
	if err != nil {
		s.t.Fatal(err)
	}
	if cfg.packetBytes == 0 {
		cfg.packetBytes = testPacketBytes
	}
	params := s.params(side, peerID, !cfg.noPartial)
	params.SendBytes = cfg.packetBytes // so there is nothing longer to search for
	end := &laneEnd{opened: make(chan uint32, 16), failed: make(chan struct{}), id: own}
	end.Lane, err = n.engine.NewLane(LaneConfig{
		Peer: peer, Conn: n.conn, To: destination, Params: params,
		PacketBytes: cfg.packetBytes,
		Opened: func(epoch uint32) {
			select {
			case end.opened <- epoch:
			default:
				s.t.Error("told of more epochs than there are")
			}
		},
		Failed: func() { close(end.failed) },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, issued := range issuedIDs(own) {
		end.Issue(issued.ID)
	}
	if err := end.Install(0, s.key(0, side.Peer()), nil); err != nil {
		s.t.Fatal(err)
	}
	return end
}

// connectLanes makes a lane between two nodes that is the way for both. x is the client and knows y as yID.
func connectLanes(x, y *laneNode, yID, xID PeerID, cfg laneConfig) (atX, atY *laneEnd, s *secrets) {
	x.t.Helper()
	s = newSecrets(x.t)
	idX, idY := s.ids.Next(0), s.ids.Next(0)
	atX = s.newEnd(x, yID, keyschedule.Client, idX, idY, y.conn.LocalAddr(), cfg)
	atY = s.newEnd(y, xID, keyschedule.Server, idY, idX, x.conn.LocalAddr(), cfg)
	for end, side := range map[*laneEnd]keyschedule.Role{atX: keyschedule.Client, atY: keyschedule.Server} {
		if err := end.Seal(0, s.key(0, side)); err != nil {
			x.t.Fatal(err)
		}
	}
	atX.Ping() // it is answered, so both hear each other
	for _, end := range []*laneEnd{atX, atY} {
		if epoch := next(x.t, end.opened); epoch != 0 || !end.carries() {
			x.t.Fatalf("epoch %d, carries %v", epoch, end.carries())
		}
	}
	return atX, atY, s
}

// pairOf starts a gateway and a member with a lane between them. The member is a.
func pairOf(t testing.TB, o tun.Offloads, cfg laneConfig) (gw, a *laneNode, atGateway, atMember *laneEnd) {
	t.Helper()
	gw = startLanes(t, gatewaySnapshot(idA, idB), o, loopback4)
	a = startLanes(t, memberSnapshot(a4, a6), o, loopback4)
	atMember, atGateway, _ = connectLanes(a, gw, gateway, idA, cfg)
	return gw, a, atGateway, atMember
}

// next waits for what must come.
func next[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	timeout := time.NewTimer(hang)
	defer timeout.Stop()
	select {
	case v := <-from:
		return v
	case <-timeout.C:
		t.Fatal("nothing came")
		panic("not reached")
	}
}

// await waits for a state that must come about.
func await(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for until := time.Now().Add(hang); !reached(); runtime.Gosched() {
		if time.Now().After(until) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (n *laneNode) inject(packets ...tun.Packet) {
	n.t.Helper()
	for _, p := range packets {
		if err := n.nic.InjectPacket(tun.Packet{Data: append([]byte(nil), p.Data...), Offload: p.Offload}); err != nil {
			n.t.Fatal(err)
		}
	}
}

// host takes packets from the NIC until they amount to that many segments, which it returns. joined is how many packets
// of the NIC held more than one.
func (n *laneNode) host(count int) (all [][]byte, joined int) {
	n.t.Helper()
	for len(all) < count {
		p := next(n.t, n.nic.Packets())
		if p.Offload.Segmentation != tun.SegmentNone {
			joined++
		}
		all = append(all, segments(n.t, p)...)
	}
	if len(all) != count {
		n.t.Errorf("the host got %d segments, want %d", len(all), count)
	}
	return all, joined
}

// drops returns the counters that are not zero.
func (n *laneNode) drops() map[string]uint64 {
	out := n.engine.Stats().Drops
	maps.DeleteFunc(out, func(_ string, count uint64) bool { return count == 0 })
	return out
}

// dropped is how many were dropped for any reason.
func (n *laneNode) dropped() (sum uint64) {
	for _, count := range n.engine.Stats().Drops {
		sum += count
	}
	return sum
}

// expectDrops waits until as many are counted, and sees that no others are.
func (n *laneNode) expectDrops(want map[Reason]uint64) {
	n.t.Helper()
	named := map[string]uint64{}
	for reason, count := range want {
		named[reason.String()] = count
	}
	wanted := uint64(0)
	for _, count := range want {
		wanted += count
	}
	await(n.t, "drops to be counted", func() bool { return n.dropped() >= wanted })
	if got := n.drops(); !maps.Equal(got, named) {
		n.t.Errorf("dropped %v, want %v", got, named)
	}
}

// stranger is the other end of a lane, made of its parts, so that it can do what no engine would.
type stranger struct {
	t      testing.TB
	conn   *udp.Conn
	to     *udp.Destination
	sealer *lane.Sealer
	opener *lane.Opener
	end    *laneEnd // of the engine
	secret *secrets

	messages []udp.Message
}

// newStranger makes a lane between a node and a stranger, who is the client, and waits until the engine uses it.
func newStranger(n *laneNode, id PeerID, cfg laneConfig) *stranger {
	n.t.Helper()
	s := newSecrets(n.t)
	o := &stranger{t: n.t, conn: openConn(n.t, loopback4), secret: s}
	n.t.Cleanup(func() {
		if err := o.conn.Close(); err != nil {
			n.t.Error(err)
		}
	})
	own, theirs := s.ids.Next(0), s.ids.Next(0)
	o.end = s.newEnd(n, id, keyschedule.Server, theirs, own, o.conn.LocalAddr(), cfg)
	if err := o.end.Seal(0, s.key(0, keyschedule.Server)); err != nil {
		n.t.Fatal(err)
	}
	var err error
	if o.to, err = o.conn.NewDestination(n.conn.LocalAddr(), netip.Addr{}, 0); err != nil {
		n.t.Fatal(err)
	}
	o.sealer, err = lane.NewSealer(lane.SealerConfig{
		Keys: lane.Keys{Key: s.key(0, keyschedule.Client)}, Header: s.header(keyschedule.Client), ID: theirs,
		MaxPacketBytes: 2000,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	o.opener, err = lane.NewOpener(lane.OpenerConfig{
		Keys: lane.Keys{Key: s.key(0, keyschedule.Server)}, Header: s.header(keyschedule.Server),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	o.send(0, o.seal(lane.AppendPadding(nil, 20)))
	next(n.t, o.end.opened)
	await(n.t, "the lane", o.end.carries)
	return o
}

// seal makes a lane packet.
func (o *stranger) seal(frames []byte) []byte {
	o.t.Helper()
	out := make([]byte, lane.OverheadBytes+len(frames))
	if _, verdict := o.sealer.Seal(out, frames); verdict != lane.VerdictOK {
		o.t.Fatalf("seal: %v", verdict)
	}
	return out
}

// datagram makes a lane packet of a packet in a context.
func (o *stranger) datagram(p []byte, quarterStreamID, context uint8) []byte {
	o.t.Helper()
	return o.seal(append(lane.AppendDatagramHeader(nil, quarterStreamID, context), p...))
}

func (o *stranger) send(ecn uint8, datagrams ...[]byte) {
	o.t.Helper()
	for _, d := range datagrams {
		if err := o.conn.Send(d, 0, ecn, o.to); err != nil {
			o.t.Fatal(err)
		}
	}
}

// received is a lane packet that the stranger has opened.
type received struct {
	lane.Datagram
	ecn uint8
}

// receive opens that many lane packets. Those without a DATAGRAM do not count.
func (o *stranger) receive(count int) []received {
	o.t.Helper()
	var all []received
	for len(all) < count {
		for _, f := range o.frames() {
			if f.Datagram.Payload != nil {
				all = append(all, received{f.Datagram, f.ecn})
			}
		}
	}
	return all
}

// opened is the content of a lane packet.
type opened struct {
	lane.Frames
	id  lane.ConnectionID // that it came to
	ecn uint8
}

// frames opens what has come, waiting for the first.
func (o *stranger) frames() (all []opened) {
	o.t.Helper()
	if o.messages == nil {
		o.messages = make([]udp.Message, udp.MaxBatch)
		for i := range o.messages {
			o.messages[i].Data = make([]byte, udp.MaxReceiveBytes)
		}
	}
	guard := time.AfterFunc(hang, func() { _ = o.conn.Close() })
	defer guard.Stop()
	n, err := o.conn.Receive(o.messages)
	if err != nil {
		o.t.Fatalf("nothing came: %v", err)
	}
	for i := range o.messages[:n] {
		m := &o.messages[i]
		for rest := m.Data; len(rest) > 0; {
			datagram := rest[:min(m.SegmentBytes, len(rest))]
			rest = rest[len(datagram):]
			all = append(all, o.open(datagram, m.ECN))
		}
	}
	return all
}

// challenged waits for a PATH_CHALLENGE, answers it, and returns the connection ID that it came to.
func (o *stranger) challenged() lane.ConnectionID {
	o.t.Helper()
	for {
		for _, f := range o.frames() {
			if f.Set.Has(lane.HasPathChallenge) {
				o.send(0, o.seal(lane.AppendPathResponse(nil, f.Challenge)))
				return f.id
			}
		}
	}
}

func (o *stranger) open(datagram []byte, ecn uint8) opened {
	o.t.Helper()
	id := lane.ConnectionID(datagram[1:])
	frames, _, verdict := o.opener.Open(datagram, 0)
	if verdict != lane.VerdictOK {
		o.t.Fatalf("open: %v", verdict)
	}
	f := opened{id: id, ecn: ecn}
	if !lane.ParseFrames(frames, &f.Frames) {
		o.t.Fatalf("malformed frames %x", frames)
	}
	f.Datagram.Payload = append([]byte(nil), f.Datagram.Payload...)
	return f
}

// carrier attaches a carrier in memory and returns the peer's end of it, once packets for the peer would take it.
func (n *laneNode) carrier(id PeerID) *wire {
	n.t.Helper()
	ours, theirs := newWire(0)
	n.attach(id, ours)
	return theirs
}

// attach serves a carrier until the test ends.
func (n *laneNode) attach(id PeerID, ours *wire) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.engine.Attach(ctx, id, ours) // how it ends is no matter here
	}()
	n.t.Cleanup(func() {
		ours.end()
		cancel()
		<-done
	})
	await(n.t, "a carrier", func() bool { return hasCarrier(n.engine, id) })
}

// hasCarrier reports whether there is one whose turn it is.
func hasCarrier(e *Engine, id PeerID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.peers[id].turn.Load().of != nil
}

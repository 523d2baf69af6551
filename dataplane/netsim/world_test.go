package netsim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
)

const (
	millisecond = int64(1_000_000)
	second      = 1000 * millisecond

	port           = 443
	maxPacketBytes = 1452 // the longest lane packet that a node takes
	sessionBytes   = 1252 // what a session knows of the path
)

// laneEnd is one end of a lane, as control sees it. *dataplane.Lane is one.
type laneEnd interface {
	Issue(id lane.ConnectionID)
	Retire(id lane.ConnectionID)
	Install(epoch uint32, openKey, sealKey *aead.PacketKey) error
	Seal(epoch uint32, key *aead.PacketKey) error
	Keep(epoch uint32) error
	Expire()
	Epoch() (epoch uint32, opened bool)
	Progress() (sealed, opened uint64)
	SealStop()
	Ping()
	Try(remote netip.AddrPort)
	Failed() (lane.Reason, bool)
	AddPeerIDs(ids []lane.IssuedID)
	TakeRetired() []uint32
	Close()
}

// laneSpec is what a machine makes a lane of.
type laneSpec struct {
	peer   *node
	to     netip.AddrPort
	params *lane.Params
	bytes  int // that the session knows the path to carry
	opened func()
}

// machine is the dataplane of a node.
type machine interface {
	newLane(spec laneSpec) (laneEnd, error)
	// attach gives the machine a session with a peer, and detach takes it back.
	attach(s *session)
	detach(s *session)
	// send takes a packet of the node's own host.
	send(to *node, p []byte)
	// arrived takes a datagram from the socket, fromSession a packet of a peer from a session.
	arrived(d *Datagram)
	fromSession(s *session, p []byte)
	// carries reports whether a lane is the way to a peer, and maxInner the longest packet that the lane takes.
	carries(peer *node) bool
	maxInner(peer *node) int
	// state is everything that datagrams which do not open must not change; nil for a machine that does not tell.
	state() []byte
}

// style is what a schedule is like. Rates are per second.
type style struct {
	lossless bool // nothing is lost but by what the lane does
	members  int
	nat      bool
	ipv6     bool
	storm    int64         // how long it lasts
	link     [2]Conditions // of members, and of the gateway
	packets  float64       // per second and direction, in bursts
	burst    int
	breaks   float64 // of sessions
	orderly  float64 // which part of the breaks is
	ratchets float64
	moves    float64
	// pathChanges change a link; mtuMin is the least MTU then, 0 for none, and deadNanos how long it may be dead.
	pathChanges float64
	mtuMin      int
	deadNanos   int64
	localMTU    bool // interfaces tell what they do not take
	attacks     float64
	amnesia     float64 // restarts
	bothDial    bool
	pathMTU     int // of members at the end; 0 is what it was
	ecn         bool
	// maxInnerBytes is the longest packet of a host that is not as long as the lane takes.
	maxInnerBytes int
	// lagNanos is how late control learns that an epoch is in use, stallNanos for how long it may do nothing,
	// knowsEndLate how late the other end of a session learns that it is over, redialNanos how long after that a new one
	// is made, and messageDelayNanos how long messages take beyond what the network takes.
	lagNanos, stallNanos, knowsEndLate, redialNanos, messageDelayNanos int64
	natIdleNanos                                                       int64
}

// world is nodes, what connects them, and what must be true of them.
type world struct {
	seed  uint64
	rng   *rand.Rand
	net   *Network
	style style
	nodes []*node
	tap   *tap
	calm  bool
	fault string
	trace []string
	lines int
	// drive has everything happen up to a time.
	drive func(untilNanos int64)

	sessions []*session
	serial   uint64 // of sessions
	serialID uint64 // of connection IDs
	inner    map[uint64]*innerPacket
	nextID   uint64 // of inner packets
	nextData uint64 // of challenges
	counts   counts
}

// counts are what a schedule has come to, so that a test can see that schedules are not idle.
type counts struct {
	overLane, overSession, delivered int
	adoptions, failedAdoptions       int
	ratchets, moves, attacks, joined int
}

func (c *counts) add(o *counts) {
	c.adoptions += o.adoptions
	c.failedAdoptions += o.failedAdoptions
	c.ratchets += o.ratchets
	c.moves += o.moves
	c.attacks += o.attacks
	c.joined += o.joined
	c.overLane += o.overLane
	c.overSession += o.overSession
}

// node is a gateway, number 0, or a member.
type node struct {
	w       *world
	index   int
	id      lane.NodeID
	addr    netip.Addr // of its host
	inner   netip.Addr // in the tunnel
	host    *Host
	nat     *NAT
	socket  *Socket
	machine machine
	parties []*party // by the peer's index
	stalled int64    // control does nothing until then
	homes   int      // addresses that it has had
}

// newWorld makes the nodes of a schedule. Their machines are the caller's.
func newWorld(seed uint64, s style) *world {
	w := &world{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), style: s, inner: map[uint64]*innerPacket{},
	}
	w.tap = newTap(w)
	w.net = New(Config{Seed: seed, Sent: w.tap.sent, Arrived: w.tap.arrived})
	w.drive = w.play
	for i := range 1 + s.members {
		nd := &node{
			w: w, index: i, id: lane.NodeID{byte(i + 1)}, inner: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}),
			parties: make([]*party, 1+s.members),
		}
		w.nodes = append(w.nodes, nd)
		w.must(nd.connect())
	}
	for _, nd := range w.nodes {
		for _, peer := range w.nodes {
			if peer != nd && (peer.index == 0 || nd.index == 0) {
				nd.parties[peer.index] = newParty(nd, peer)
			}
		}
	}
	return w
}

// connect puts a node on the network.
func (nd *node) connect() error {
	var err error
	w := nd.w
	nd.addr = w.address(0, nd.index+1)
	if nd.index > 0 && w.style.nat {
		kind := NATKind(w.rng.IntN(int(NATKinds)))
		outside := w.address(1, nd.index+1)
		if nd.nat, err = w.net.AddNAT(NATConfig{Kind: kind, Addr: outside, IdleNanos: w.style.natIdleNanos}); err != nil {
			return err
		}
	}
	c := w.linkOf(nd)
	nd.host, err = w.net.AddHost(HostConfig{Addr: nd.addr, Behind: nd.nat, Up: c, Down: c, InterfaceBytes: 1500})
	if err != nil {
		return err
	}
	nd.socket, err = nd.host.Open(port, nd.arrived)
	return err
}

func (w *world) linkOf(nd *node) Conditions {
	c := w.style.link[1-min(nd.index, 1)]
	if c.MTUBytes == 0 {
		c.MTUBytes = 1500
	}
	return c
}

func (w *world) must(err error) {
	if err != nil {
		w.failf("%v", err)
	}
}

func (w *world) logf(format string, args ...any) {
	if w.fault != "" {
		return
	}
	line := fmt.Sprintf("%9.4f ", float64(w.net.Nanos())/1e9) + fmt.Sprintf(format, args...)
	if len(w.trace) == *traceFlag {
		w.trace = w.trace[1:]
	}
	w.trace = append(w.trace, line)
	w.lines++
}

func (w *world) failf(format string, args ...any) {
	if w.fault == "" {
		w.fault = fmt.Sprintf("%9.4f ", float64(w.net.Nanos())/1e9) + fmt.Sprintf(format, args...)
	}
}

// play has everything happen up to a time, or to the first fault.
func (w *world) play(untilNanos int64) {
	for w.fault == "" && w.net.Next() <= untilNanos {
		w.net.Step()
	}
	w.net.Advance(untilNanos)
}

// report is what a failing schedule shows.
func (w *world) report() string { return strings.Join(w.trace, "\n") + "\n" + w.fault }

// run plays the stormy part of a schedule, then a calm one in which everything must come right.
func (w *world) run() {
	for _, nd := range w.nodes[1:] {
		w.dial(nd, w.nodes[0])
	}
	w.net.After(w.between(0, second), w.traffic)
	w.net.After(tickNanos, w.tick)
	if w.style.lossless {
		w.drive(12 * second) // from then on lanes carry everything
		for _, nd := range w.nodes[1:] {
			if !nd.machine.carries(w.nodes[0]) || !w.nodes[0].machine.carries(nd) {
				w.failf("no lane between %d and 0 after 12 s of a network without faults", nd.index)
			}
		}
		w.tap.settled = true
	}
	w.weather()
	w.drive(w.net.Nanos() + w.style.storm)
	if w.fault == "" {
		w.settle()
	}
}

// between draws from a to b.
func (w *world) between(a, b int64) int64 {
	if b <= a {
		return a
	}
	return a + w.rng.Int64N(b-a+1)
}

// happens decides for a rate per second, asked every interval.
func (w *world) happens(rate float64, interval int64) bool {
	return rate > 0 && w.rng.Float64() < rate*float64(interval)/float64(second)
}

// sessionBytes is what a session knows of the path. In a network with faults it is not always right.
func (w *world) sessionBytes() int {
	if w.style.lossless {
		return min(sessionBytes, w.style.pathMTU-HeaderBytes(w.nodes[0].addr))
	}
	return sessionBytes
}

// sealedBytes is how long the lane packet of an inner one is.
func sealedBytes(inner int) int { return inner + lane.OverheadBytes + lane.DatagramHeaderBytes }

// minMTUBytes is the least that a link carries.
func (w *world) minMTUBytes() int {
	if w.style.ipv6 {
		return 1280
	}
	return 576
}

// floorBytes is the shortest that a lane's longest packet ever is.
func (w *world) floorBytes() int { return w.minMTUBytes() - HeaderBytes(w.nodes[0].addr) }

// address makes up an address of a network.
func (w *world) address(network, host int) netip.Addr {
	if w.style.ipv6 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 7: byte(network), 15: byte(host)})
	}
	return netip.AddrFrom4([4]byte{192, 0, byte(network), byte(host)})
}

// addressOf is where a node sees a datagram come from.
func addressOf(d *Datagram, server bool) path.Address {
	if !server {
		return path.Address{Remote: d.From}
	}
	return path.Address{Remote: d.From, Local: d.To.Addr(), InterfaceIndex: 1}
}

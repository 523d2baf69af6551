package dataplane

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

const (
	// plainContext is context 0: one IP packet with complete checksums (RFC 9484 section 6).
	plainContext = 0
	// innerOverheadBytes is what a lane packet has besides the inner packet.
	innerOverheadBytes = lane.OverheadBytes + lane.DatagramHeaderBytes
	// maxControl bounds the packets that wait to be said by a lane itself.
	maxControl = 64
)

// ErrNoKeys means that a lane was told to seal before it could open.
var ErrNoKeys = errors.New("lane has no opening keys")

// LaneConfig is what a lane is made of.
type LaneConfig struct {
	Peer   PeerID
	Conn   *udp.Conn
	To     *udp.Destination // where the peer is
	Params *lane.Params     // what was agreed
	// PacketBytes is the longest UDP payload that the path is known to carry.
	PacketBytes int
	// Opened is told of the first packet opened of each epoch, and Failed that the lane has ended by itself
	// ([Lane.Failed]). They are called by a receiving thread and must not block.
	Opened func(epoch uint32)
	Failed func()
}

// Lane carries a peer's packets without QUIC. Its methods are for control and may be called from any goroutine.
type Lane struct {
	engine *Engine
	peer   *peer
	conn   *udp.Conn
	params *lane.Params
	opened func(epoch uint32)
	failed func()

	quarterStreamID uint8
	partialContext  uint8 // to send with; plainContext if the peer takes none
	pieceContext    uint8 // likewise
	takePartial     uint8 // that the peer sends with; plainContext if it was not registered
	takePieces      uint8 // likewise

	way         atomic.Pointer[way]
	packetBytes atomic.Int64 // longest lane packet to be sent
	searched    atomic.Bool  // that is what the path carries; until then longer packets are split
	path        *lanePath
	kept        keeperEntry
	pieces      path.Splitter // used under serving

	// serving is held by the thread that seals: whoever has put something into the queue tries to get it, and leaves
	// the work to the holder otherwise.
	serving    atomic.Bool
	kicked     atomic.Bool
	sealer     atomic.Pointer[lane.Sealer] // nil before the first key; used under serving
	stopped    atomic.Bool                 // seals nothing
	suspect    atomic.Bool                 // nothing that it sends seems to arrive
	hasControl atomic.Bool

	sealed, highest atomic.Uint64 // written once per batch

	opener     atomic.Pointer[lane.Opener] // nil before the first key; used by the socket's receiver
	toldEpoch  uint32                      // of the last call of opened, plus 1; the receiver's
	everOpened atomic.Bool
	over       atomic.Bool   // closed; set under mu
	reason     atomic.Uint32 // why it has ended by itself; 0 if it has not
	joiner     *path.Joiner  // of packets in pieces; the receiver's, made with the first piece

	mu      sync.Mutex // guards the rest
	ids     []lane.ConnectionID
	control []controlPacket
}

// controlPacket is something that a lane itself has to say.
type controlPacket struct {
	frames []byte
	by     *way // nil: the path in use
	probe  bool // of the path: its loss is no news
	asks   bool // for an answer, without which the lane is suspect
}

// NewLane makes a lane that takes no packets and sends none before Issue, Install and Seal. The error is
// ErrUnknownPeer.
func (e *Engine) NewLane(cfg LaneConfig) (*Lane, error) {
	e.mu.Lock()
	p := e.peers[cfg.Peer]
	e.mu.Unlock()
	if p == nil {
		return nil, ErrUnknownPeer
	}
	l := &Lane{
		engine: e, peer: p, conn: cfg.Conn, params: cfg.Params, opened: cfg.Opened, failed: cfg.Failed,
		quarterStreamID: cfg.Params.QuarterStreamID,
		partialContext:  contextOf(cfg.Params.Send, lane.ContextPartialChecksum),
		pieceContext:    contextOf(cfg.Params.Send, lane.ContextPiece),
		takePartial:     contextOf(cfg.Params.Take, lane.ContextPartialChecksum),
		takePieces:      contextOf(cfg.Params.Take, lane.ContextPiece),
	}
	l.path = newLanePath(l, cfg.To, min(cfg.PacketBytes, cfg.Params.SendBytes), e.now())
	l.path.settleSize()
	if !p.addLane(l) {
		return nil, ErrUnknownPeer
	}
	return l, nil
}

// contextOf finds the ID of a kind of context.
func contextOf(list []lane.Context, kind lane.ContextKind) uint8 {
	for _, c := range list {
		if c.Kind == kind {
			return c.ID
		}
	}
	return plainContext
}

// Issue makes the lane take packets for a connection ID.
func (l *Lane) Issue(id lane.ConnectionID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over.Load() {
		return
	}
	l.ids = append(l.ids, id)
	l.engine.lanes.add(id, l)
}

// Retire makes the lane take no more packets for a connection ID.
func (l *Lane) Retire(id lane.ConnectionID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.ids {
		if l.ids[i] == id {
			l.ids = append(l.ids[:i], l.ids[i+1:]...)
			l.engine.lanes.remove(id)
			return
		}
	}
}

// Install adds the opening key of an epoch. Where there is a sealing key too, the lane seals with it as soon as a packet of
// the epoch has been opened, unless it has not sealed before: then it waits for Seal.
func (l *Lane) Install(epoch uint32, openKey, sealKey *aead.PacketKey) error {
	keys := lane.Keys{Epoch: epoch, Key: openKey}
	o := l.opener.Load()
	if o == nil {
		o, err := lane.NewOpener(lane.OpenerConfig{Keys: keys, Header: l.params.HeaderOpen})
		if err != nil {
			return err
		}
		l.opener.Store(o)
		return nil
	}
	if err := o.Install(keys); err != nil {
		return err
	}
	if s := l.sealer.Load(); s != nil && sealKey != nil {
		return s.InstallAfter(lane.Keys{Epoch: epoch, Key: sealKey}, o)
	}
	return nil
}

// Seal makes the lane seal with an epoch from now on, if it does not do so already.
func (l *Lane) Seal(epoch uint32, key *aead.PacketKey) error {
	if l.opener.Load() == nil {
		return ErrNoKeys
	}
	keys := lane.Keys{Epoch: epoch, Key: key}
	l.stopped.Store(false)
	if s := l.sealer.Load(); s != nil {
		if err := s.Install(keys); err != nil && !errors.Is(err, lane.ErrKeyEpoch) { // it has moved on by itself
			return err
		}
		l.settle()
		return nil
	}
	s, err := lane.NewSealer(lane.SealerConfig{
		Keys: keys, Header: l.params.HeaderSeal, ID: l.way.Load().id, MaxPacketBytes: l.params.SendBytes,
	})
	if err != nil {
		return err
	}
	l.sealer.Store(s)
	l.path.begin()
	l.settle()
	return nil
}

// Keep makes an epoch that both ends have agreed on at an adoption the current one for opening.
func (l *Lane) Keep(epoch uint32) error {
	if s := l.sealer.Load(); s != nil {
		s.Withdraw() // what waits to be taken; Seal follows
	}
	if o := l.opener.Load(); o != nil {
		return o.Keep(epoch, l.engine.now())
	}
	return ErrNoKeys
}

// Expire forgets the opening key of the epoch before once its time is over.
func (l *Lane) Expire() {
	if o := l.opener.Load(); o != nil {
		o.Expire(l.engine.now())
	}
}

// Epoch returns the epoch that packets are opened with, and whether one has been.
func (l *Lane) Epoch() (epoch uint32, opened bool) {
	if o := l.opener.Load(); o != nil {
		return o.Epoch()
	}
	return 0, false
}

// Progress tells how far the packet numbers are: the next number to be sealed, and one more than the highest opened.
func (l *Lane) Progress() (sealed, opened uint64) { return l.sealed.Load(), l.highest.Load() }

// SealStop makes the lane seal nothing more; packets go through the peer's carrier.
func (l *Lane) SealStop() {
	l.stopped.Store(true)
	l.leave()
}

// Ping seals a packet that asks for an answer.
func (l *Lane) Ping() { l.say(controlPacket{frames: lane.AppendPing(nil), asks: true}) }

// say queues a packet. What does not fit the queue is dropped: whoever needs it says it again.
func (l *Lane) say(p controlPacket) {
	l.mu.Lock()
	full := l.over.Load() || len(l.control) >= maxControl
	if !full {
		l.control = append(l.control, p)
		l.hasControl.Store(true)
	}
	l.mu.Unlock()
	if !full {
		l.engine.kick(l)
	}
}

// takeControl returns what the lane itself has to say.
func (l *Lane) takeControl() []controlPacket {
	l.mu.Lock()
	defer l.mu.Unlock()
	packets := l.control
	l.control = nil
	l.hasControl.Store(false)
	return packets
}

// settle makes the lane the way to its peer once packets have crossed it in both directions.
func (l *Lane) settle() {
	if l.sealer.Load() == nil || !l.everOpened.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over.Load() && !l.stopped.Load() && !l.suspect.Load() {
		l.peer.lane.Store(l)
		l.engine.kick(l)
	}
}

// address is the path in use.
func (l *Lane) address() path.Address { return addressOf(l.way.Load().to) }

// addressOf is the path that a message came by. Where a client's packets leave from is its own system's choice, which
// follows its networks; a server answers from where it was asked.
func (l *Lane) addressOf(m *udp.Message) path.Address {
	if l.params.Side == keyschedule.Client {
		return path.Address{Remote: m.From}
	}
	return path.Address{Remote: m.From, Local: m.Local, InterfaceIndex: m.InterfaceIndex}
}

// carries reports whether the lane is the way to its peer.
func (l *Lane) carries() bool { return l.peer.lane.Load() == l }

// leave gives the peer's packets back to its carrier.
func (l *Lane) leave() {
	if l.peer.lane.CompareAndSwap(l, nil) {
		l.peer.wakeCarrier()
		l.engine.discardUnreachable(l.peer)
	}
}

// Failed reports whether the lane has ended by itself, and why: [lane.ReasonForgery] for a key that has failed to open too
// many packets, or [lane.ReasonReset].
func (l *Lane) Failed() (lane.Reason, bool) {
	reason := l.reason.Load()
	return lane.Reason(reason), reason != 0
}

// fail ends the lane for a reason that control does not know of.
func (l *Lane) fail(reason lane.Reason) {
	l.reason.Store(uint32(reason))
	l.Close()
	l.failed()
}

// Try asks whether the peer is at an address, such as that of a session which has been made anew, and moves there when it
// answers.
func (l *Lane) Try(remote netip.AddrPort) {
	l.path.try(path.Address{Remote: remote}, l.engine.now())
}

// AddPeerIDs takes in connection IDs that the peer has issued since the lane was made.
func (l *Lane) AddPeerIDs(ids []lane.IssuedID) {
	l.path.mu.Lock()
	defer l.path.mu.Unlock()
	l.path.ends.issue(ids)
}

// TakeRetired returns the sequence numbers of the peer's connection IDs that have gone out of use since it was last called.
func (l *Lane) TakeRetired() []uint32 {
	l.path.mu.Lock()
	defer l.path.mu.Unlock()
	retired := l.path.ends.retired
	l.path.ends.retired = nil
	return retired
}

// Close ends the lane: it takes no packets any more and sends none.
func (l *Lane) Close() {
	l.mu.Lock()
	l.over.Store(true)
	l.stopped.Store(true)
	if len(l.ids) > 0 {
		l.engine.lanes.end(l.ids)
	}
	l.ids, l.control = nil, nil
	l.mu.Unlock()
	l.path.mu.Lock()
	l.path.ends.close()
	l.path.mu.Unlock()
	l.engine.keeper.remove(l)
	l.peer.removeLane(l)
	l.leave()
}

// maxInnerBytes is the longest inner packet that fits.
func (l *Lane) maxInnerBytes() int { return int(l.packetBytes.Load()) - innerOverheadBytes }

// leastInnerBytes is the longest inner packet that crosses every path, if need be in pieces; 0 where the peer takes none.
func (l *Lane) leastInnerBytes() int {
	if l.pieceContext == plainContext {
		return 0
	}
	return packet.MinIPv6MTUBytes
}

// sendFailed is told what became of a send that was not made.
func (l *Lane) sendFailed(err error) {
	if size, ok := errors.AsType[udp.SizeError](err); ok {
		l.path.refused(int(size), l.engine.now())
	}
}

// LaneStats is a reading of the lane that carries a peer's packets.
type LaneStats struct {
	Suite          string         // cipher suite
	Remote         netip.AddrPort // where the peer is
	MaxPacketBytes int            // longest inner packet that passes now, if need be in pieces
}

// stats returns nil for no lane.
func (l *Lane) stats() *LaneStats {
	if l == nil {
		return nil
	}
	return &LaneStats{
		Suite: l.params.Suite.String(), Remote: l.way.Load().to.To(),
		MaxPacketBytes: max(l.maxInnerBytes(), l.leastInnerBytes()),
	}
}

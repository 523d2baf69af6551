package netsim

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
)

// parts is a dataplane made of the product's parts, with nothing between them but what PROTOCOL.md asks for: no threads, no
// queues, no system. The same seed gives the same schedule, to the nanosecond.
type parts struct {
	nd       *node
	byID     map[lane.ConnectionID]*partsLane
	lanes    []*partsLane
	way      map[*node]*partsLane
	sessions map[*node][]*session // the newest last
	pieces   *path.PieceBuffers
}

// pieceLimitBytes bounds the buffers of unfinished packets.
const pieceLimitBytes = 1 << 20

func newParts(nd *node) *parts {
	return &parts{
		nd: nd, byID: map[lane.ConnectionID]*partsLane{}, way: map[*node]*partsLane{},
		sessions: map[*node][]*session{}, pieces: path.NewPieceBuffers(pieceLimitBytes),
	}
}

func (m *parts) now() int64 { return m.nd.w.net.Nanos() }

func (m *parts) attach(s *session) {
	peer := s.peer(m.nd)
	m.sessions[peer] = append(m.sessions[peer], s)
}

func (m *parts) detach(s *session) {
	peer := s.peer(m.nd)
	m.sessions[peer] = slices.DeleteFunc(m.sessions[peer], func(o *session) bool { return o == s })
}

func (m *parts) carries(peer *node) bool { return m.way[peer] != nil }

func (m *parts) maxInner(peer *node) int {
	if l := m.way[peer]; l != nil {
		return l.search.Size() - sealedBytes(0)
	}
	return 0
}

// send brings a packet to a peer: by the lane, by the session, or not at all.
func (m *parts) send(to *node, p []byte) {
	w := m.nd.w
	if l := m.way[to]; l != nil {
		w.counts.overLane++
		l.send(p)
		return
	}
	if all := m.sessions[to]; len(all) > 0 {
		w.counts.overSession++
		w.overSession(all[len(all)-1], m.nd, p)
	}
}

// overSession carries a packet over a session.
func (w *world) overSession(s *session, from *node, p []byte) {
	to := s.peer(from)
	w.net.After(w.oneWay(from, to), func() {
		if s.up[s.end(to)] && !w.dead(from, to) {
			to.machine.fromSession(s, p)
		}
	})
}

func (m *parts) fromSession(_ *session, p []byte) { m.nd.deliver(p) }

func (m *parts) arrived(d *Datagram) {
	if len(d.Payload) < lane.MinPacketBytes {
		return
	}
	if l := m.byID[lane.ConnectionID(d.Payload[1:])]; l != nil && l.opener != nil {
		l.receive(d)
	}
}

// partsLane is one end of a lane.
type partsLane struct {
	m      *parts
	peer   *node
	params *lane.Params
	opened func()
	ids    []lane.ConnectionID

	sealer    *lane.Sealer
	opener    *lane.Opener
	takes     uint8 // the context of pieces that it takes
	sends     uint8 // the context of pieces that the peer takes
	toldEpoch uint32
	heard     bool
	stopped   bool
	suspect   bool
	closed    bool

	ends    [path.MaxPaths]partsEnd // by the validation's index
	spare   []lane.IssuedID
	retired []uint32

	search     *path.Search
	validation *path.Validation
	estimate   *path.Estimate
	reporter   path.Reporter
	liveness   path.Liveness
	splitter   path.Splitter
	joiner     *path.Joiner
	size       int // for the trace
	keepAt     int64
}

func (m *parts) newLane(spec laneSpec) (laneEnd, error) {
	now := m.now()
	l := &partsLane{
		m: m, peer: spec.peer, params: spec.params, opened: spec.opened, spare: spec.params.PeerIDs[:],
		takes: pieceContext(spec.params.Take), sends: pieceContext(spec.params.Send),
		estimate: path.NewEstimate(), joiner: path.NewJoiner(m.pieces), keepAt: path.Never,
	}
	to := path.Address{Remote: spec.to}
	l.validation = path.NewValidation(to, now)
	l.end(0, to)
	l.search = path.NewSearch(l.searchConfig(spec.bytes), now)
	m.lanes = append(m.lanes, l)
	return l, nil
}

func pieceContext(list []lane.Context) uint8 {
	for _, c := range list {
		if c.Kind == lane.ContextPiece {
			return c.ID
		}
	}
	return 0
}

func (l *partsLane) searchConfig(base int) path.SearchConfig {
	return path.SearchConfig{
		BaseBytes: base, FloorBytes: l.m.nd.w.floorBytes(), CeilingBytes: l.params.SendBytes, RTTNanos: l.estimate.RTTNanos(),
	}
}

// What control asks for.

func (l *partsLane) Issue(id lane.ConnectionID) {
	l.ids = append(l.ids, id)
	l.m.byID[id] = l
}

func (l *partsLane) Retire(id lane.ConnectionID) { delete(l.m.byID, id) }

func (l *partsLane) Install(epoch uint32, openKey, sealKey *aead.PacketKey) error {
	keys := lane.Keys{Epoch: epoch, Key: openKey}
	if l.opener == nil {
		var err error
		l.opener, err = lane.NewOpener(lane.OpenerConfig{Keys: keys, Header: l.params.HeaderOpen})
		return err
	}
	if err := l.opener.Install(keys); err != nil {
		return err
	}
	if l.sealer != nil {
		return l.sealer.InstallAfter(lane.Keys{Epoch: epoch, Key: sealKey}, l.opener)
	}
	return nil
}

func (l *partsLane) Seal(epoch uint32, key *aead.PacketKey) error {
	keys := lane.Keys{Epoch: epoch, Key: key}
	l.stopped = false
	if l.sealer == nil {
		var err error
		l.sealer, err = lane.NewSealer(lane.SealerConfig{
			Keys: keys, Header: l.params.HeaderSeal, ID: l.active().id(l), MaxPacketBytes: l.params.SendBytes,
		})
		if err != nil {
			return err
		}
	} else if epoch != l.sealer.Epoch() {
		l.sealer.Begin()
		if epoch > l.sealer.Epoch() {
			if err := l.sealer.Install(keys); err != nil {
				return err
			}
		}
	}
	l.settle()
	l.schedule()
	return nil
}

func (l *partsLane) Keep(epoch uint32) error {
	if l.sealer != nil {
		l.sealer.Withdraw()
	}
	return l.opener.Keep(epoch, l.m.now())
}

func (l *partsLane) Expire() { l.opener.Expire(l.m.now()) }

func (l *partsLane) Epoch() (uint32, bool) {
	if l.opener == nil {
		return 0, false
	}
	return l.opener.Epoch()
}

func (l *partsLane) Progress() (sealed, opened uint64) {
	if l.sealer != nil {
		sealed = l.sealer.NextNumber()
	}
	return sealed, l.opener.NextNumber()
}

func (l *partsLane) SealStop() {
	l.stopped = true
	l.leave()
}

func (l *partsLane) Ping() { l.seal(lane.AppendPing(nil), 0, l.active(), sending{asks: true}) }

func (l *partsLane) Try(remote netip.AddrPort) {
	l.validation.Try(path.Address{Remote: remote}, l.m.now())
	l.schedule()
}

func (l *partsLane) Failed() (lane.Reason, bool) { return 0, false }

func (l *partsLane) AddPeerIDs(ids []lane.IssuedID) { l.spare = append(l.spare, ids...) }

func (l *partsLane) TakeRetired() []uint32 {
	retired := l.retired
	l.retired = nil
	return retired
}

func (l *partsLane) Close() {
	l.closed, l.stopped = true, true
	for _, id := range l.ids {
		delete(l.m.byID, id)
	}
	l.joiner.Close()
	l.leave()
	l.m.lanes = slices.DeleteFunc(l.m.lanes, func(o *partsLane) bool { return o == l })
}

func (l *partsLane) settle() {
	if l.sealer != nil && l.heard && !l.closed && !l.stopped && !l.suspect {
		l.m.way[l.peer] = l
	}
}

func (l *partsLane) leave() {
	if l.m.way[l.peer] == l {
		delete(l.m.way, l.peer)
	}
}

// holdsNothing sees that a machine at rest has let go of all buffers, and of all connection IDs but those of its lanes.
func (m *parts) holdsNothing() {
	for _, l := range m.lanes {
		l.joiner.Expire(m.now() + path.UnfinishedNanos)
	}
	if in := m.pieces.InUseBytes(); in != 0 {
		m.nd.w.failf("node %d: %d bytes of buffers in use at rest", m.nd.index, in)
	}
	const most = 3 * lane.ConnectionIDs // those of a lane, those that leave
	if len(m.byID) > most*len(m.lanes) {
		m.nd.w.failf("node %d: takes packets for %d connection IDs of %d lanes", m.nd.index, len(m.byID), len(m.lanes))
	}
}

// state is all that a datagram which does not open must leave as it is.
func (m *parts) state() []byte {
	var b []byte
	for _, l := range m.lanes {
		active, _ := l.validation.Active()
		b = fmt.Appendf(b, "%v %v %v %v %v %v %v %v %v|", l.ends, active, l.search.Size(), l.search.NextNanos(),
			l.validation.NextNanos(), l.liveness.NextNanos(), l.reporter.NextNanos(), l.joiner.Unfinished(), l.suspect)
		if l.opener != nil {
			epoch, opened := l.opener.Epoch()
			s := l.opener.Stats()
			b = fmt.Appendf(b, "%v %v %v %v %v %v|", epoch, opened, l.opener.NextNumber(), s.Verdicts[lane.VerdictOK],
				s.HighestNanos, s.ECN)
		}
		if l.sealer != nil {
			b = fmt.Appendf(b, "%v %v|", l.sealer.Epoch(), l.sealer.NextNumber())
		}
	}
	return fmt.Appendf(b, "%d", m.nd.w.counts.delivered)
}

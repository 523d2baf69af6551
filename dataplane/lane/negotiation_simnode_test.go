package lane

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

type node struct {
	w     *world
	index int
	id    NodeID
	skew  int64
	lanes []*simLane // newest last
	link  *link      // newest session
}

// simLane is a machine and a dataplane that obeys it.
type simLane struct {
	n       *Negotiation
	open    map[uint32]*aead.PacketKey
	seal    *aead.PacketKey
	epoch   uint32
	number  uint64
	highest uint64
	peerID  IssuedID
	spare   []IssuedID // that the peer has issued, not used yet
	routes  map[ConnectionID]bool
	born    map[uint32]int64 // when this side sent what began an epoch
}

func (nd *node) clock() int64 { return nd.w.now + nd.skew }

func (nd *node) newest() *simLane {
	for _, l := range slices.Backward(nd.lanes) {
		if !l.n.Closed() {
			return l
		}
	}
	return nil
}

// sessionUp is what control does at the client of a new session.
func (nd *node) sessionUp(l *link) {
	if lane := nd.newest(); lane != nil {
		out, err := lane.n.Resume(l.ends[nd.index], nd.clock())
		nd.apply(lane, out)
		if err == nil {
			return
		}
	}
	nd.start(l)
}

func (nd *node) start(l *link) {
	lane := nd.add(NewClient)
	out, err := lane.n.Start(l.ends[nd.index], nd.clock())
	if err != nil {
		nd.w.failf("start: %v", err)
	}
	nd.apply(lane, out)
}

func (nd *node) add(maker func(Config) (*Negotiation, error)) *simLane {
	w := nd.w
	n, err := maker(Config{
		Local: nd.id, Peer: w.nodes[1-nd.index].id, MaxPacketBytes: 1500,
		Suites:   []aead.Suite{aead.AES128GCM, aead.ChaCha20Poly1305},
		Contexts: []ContextKind{ContextPartialChecksum, ContextPiece},
		Issue: func() (ConnectionID, ResetToken) {
			w.serial++
			var id ConnectionID
			binary.BigEndian.PutUint64(id[:], w.serial)
			if w.issued[id] {
				w.failf("connection ID %v issued twice", id)
			}
			w.issued[id] = true
			return id, ResetToken(sha256.New().Sum(id[:])[:ResetTokenBytes])
		},
	})
	if err != nil {
		panic(err)
	}
	lane := &simLane{
		n: n, open: map[uint32]*aead.PacketKey{}, routes: map[ConnectionID]bool{}, born: map[uint32]int64{},
	}
	nd.lanes = append(nd.lanes, lane)
	return lane
}

// deliver is what control does with a message.
func (nd *node) deliver(l *link, payload []byte) {
	if !l.up[nd.index] {
		return
	}
	h, err := Peek(payload)
	if err != nil {
		nd.w.failf("peek: %v", err)
		return
	}
	from := l.ends[nd.index]
	if lane := nd.owner(h, payload); lane != nil {
		out, err := lane.n.Step(from, payload, nd.clock())
		nd.w.logf("node %d: got %v: %v", nd.index, h.Kind, err)
		if errors.Is(err, ErrViolation) || errors.Is(err, ErrInternal) {
			nd.w.failf("node %d: %v", nd.index, err)
		}
		nd.apply(lane, out)
		return
	}
	if h.Kind == KindOffer && from.Role == keyschedule.Server {
		lane := nd.add(NewServer)
		out, err := lane.n.Step(from, payload, nd.clock())
		nd.w.logf("node %d: got offer: %v", nd.index, err)
		nd.apply(lane, out)
		return
	}
	if answer, err := Refuse(payload, ReasonPolicy); err == nil {
		nd.send(l, answer)
	}
}

// owner finds the machine that a message is for.
func (nd *node) owner(h Header, payload []byte) *simLane {
	for _, lane := range slices.Backward(nd.lanes) {
		id, named := lane.n.ID()
		offer, offered := lane.n.Offered()
		switch h.Kind {
		case KindOffer:
			if offered && offer == OfferIDOf(payload) {
				return lane
			}
		case KindAccept, KindRefusal:
			if offered && offer == OfferID(h.ID) {
				return lane
			}
		default:
			if named && id == ID(h.ID) {
				return lane
			}
		}
	}
	return nil
}

// send puts a message on a session: in order, without loss, as long as both ends have it.
func (nd *node) send(l *link, payload []byte) {
	w, to := nd.w, nd.peer()
	w.logf("node %d: sends %v", nd.index, Kind(payload[0]))
	if m, err := Parse(payload); err != nil || !bytes.Equal(m.Append(nil), payload) {
		w.failf("message does not survive its own parser: %v", err)
	}
	l.old = append(l.old, payload)
	copies := 1 + btoi(w.rng.Float64() < w.duplicates)
	for range copies {
		at := max(w.now+w.rng.Int64N(maxCapsule), l.lastAt[to.index])
		l.lastAt[to.index] = at
		w.at(at-w.now, func() {
			if l.up[nd.index] || w.rng.IntN(2) == 0 { // what was sent before the break may still come
				to.deliver(l, payload)
			}
		})
	}
	if w.duplicates > 0 && w.rng.IntN(20) == 0 { // an old message of an earlier session turns up in the newest
		stray := w.links[w.rng.IntN(len(w.links))].old
		if len(stray) > 0 && to.link != l {
			p := stray[w.rng.IntN(len(stray))]
			if k := Kind(p[0]); k == KindRatchetAnswer || k == KindAccept || k == KindAdoptAnswer {
				w.at(w.rng.Int64N(second), func() { to.deliver(to.link, p) })
			}
		}
	}
}

func (nd *node) peer() *node { return nd.w.nodes[1-nd.index] }

// apply does what the machine says: events first, then messages.
func (nd *node) apply(lane *simLane, out Output) {
	w := nd.w
	for _, m := range out.Messages { // note when epochs are begun, for the 180 s
		switch Kind(m.Payload[0]) {
		case KindOffer, KindAccept:
			lane.born[0] = w.now
		case KindRatchetRequest, KindRatchetAnswer:
			parsed, _ := Parse(m.Payload)
			if r, ok := parsed.(*RatchetRequest); ok {
				lane.born[r.Epoch] = w.now
			} else if r, ok := parsed.(*RatchetAnswer); ok && lane.born[r.Epoch] == 0 {
				lane.born[r.Epoch] = w.now
			}
		}
	}
	var again []func()
	for _, e := range out.Events {
		w.logf("node %d: %v epoch %d %v", nd.index, e.Kind, e.Epoch, e.Reason)
		switch e.Kind {
		case EventReady:
			lane.peerID, lane.spare = e.Params.PeerIDs[0], e.Params.PeerIDs[1:]
		case EventIssue:
			lane.routes[e.ID] = true
		case EventRetire:
			delete(lane.routes, e.ID)
		case EventPeerIDs:
			lane.spare = append(lane.spare, e.PeerIDs...)
		case EventInstall:
			lane.open[e.Epoch] = e.Open
		case EventSeal:
			lane.seal, lane.epoch = e.Seal, e.Epoch
		case EventSealStop:
			lane.seal = nil
		case EventWipe:
			delete(lane.open, e.Epoch)
		case EventPing:
			again = append(again, func() { nd.sealOne(lane, "ping") })
		case EventAdoptionFailed:
			if b := nd.link; b != nil && b.up[nd.index] && b.ends[nd.index].Role == keyschedule.Client {
				again = append(again, func() { nd.start(b) })
			}
		case EventClosed:
			lane.seal, lane.open = nil, nil
			lane.routes = map[ConnectionID]bool{}
			if b := nd.link; e.Reason != ReasonReplaced && b != nil && b.up[nd.index] &&
				b.ends[nd.index].Role == keyschedule.Client {
				again = append(again, func() {
					if nd.newest() == nil && b.up[nd.index] {
						nd.start(b)
					}
				})
			}
		}
	}
	for _, m := range out.Messages {
		for _, l := range w.links {
			if l.ends[nd.index] == m.Session && l.up[nd.index] {
				nd.send(l, m.Payload)
			}
		}
	}
	for _, do := range again {
		do()
	}
}

package netsim

import (
	"encoding/binary"
	"net/netip"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// tap reads everything that crosses the network. It has all keys, and holds what lanes send against what they may send:
// no packet number twice, nothing that the other end has no key for, no more than three times what came to where nobody
// has answered, and no packet of a host there at all.
type tap struct {
	w       *world
	settled bool // all lanes are there, and packets must arrive
	byID    map[lane.ConnectionID]*side
	records map[uint64]*record // of datagrams sent, by ID
	recent  []*record          // of what nodes have sent, the newest last
	seen    map[uint64]bool    // datagrams that were opened
}

// side is one end of a lane: what it seals, and what it opens.
type side struct {
	tap     *tap
	nd      *node
	id      lane.ID
	twin    *side // nil until the other end is there
	header  *aead.HeaderKey
	keys    []sideKey // to open with, ever installed
	numbers map[uint64]bool
	closed  bool

	// Of what this end seals.
	places     map[netip.AddrPort]*place
	challenges map[lane.PathData]netip.AddrPort
	lastData   netip.AddrPort
	lastDataAt int64
	longest    int // of packets with a DATAGRAM
	// Of what this end opens.
	firstFrom map[netip.AddrPort]int64 // when the first packet came from a place
	lastFrom  netip.AddrPort
}

type sideKey struct {
	epoch uint32
	key   *aead.PacketKey
}

// place is an address that an end of a lane sends to.
type place struct {
	valid         bool
	credit, spent int
	dataAt        int64 // when the first packet of a host went there; 0 for never
}

// record is a lane packet that was sent.
type record struct {
	id       uint64
	to       *side // that it is for
	number   uint64
	epoch    uint32
	frames   lane.Frames
	datagram bool
	payload  []byte
	from     *node
	place    netip.AddrPort
	at       int64
	taken    bool // a copy has arrived
}

func newTap(w *world) *tap {
	return &tap{
		w: w, byID: map[lane.ConnectionID]*side{}, records: map[uint64]*record{}, seen: map[uint64]bool{},
	}
}

func (t *tap) newSide(nd *node, params *lane.Params, to netip.AddrPort) *side {
	s := &side{
		tap: t, nd: nd, id: params.Lane, header: params.HeaderOpen, numbers: map[uint64]bool{},
		places: map[netip.AddrPort]*place{to: {valid: true}}, challenges: map[lane.PathData]netip.AddrPort{},
		firstFrom: map[netip.AddrPort]int64{},
	}
	for _, o := range t.byID {
		if o.id == s.id {
			s.twin, o.twin = o, s
			break
		}
	}
	return s
}

func (s *side) issue(id lane.ConnectionID) {
	if s.tap.byID[id] != nil {
		s.tap.w.failf("connection ID %v was issued twice", id)
	}
	s.tap.byID[id] = s
}

func (s *side) install(epoch uint32, key *aead.PacketKey) {
	s.keys = append(s.keys, sideKey{epoch, key})
}

// open reads a packet for this end as whoever has the keys can.
func (s *side) open(b []byte) (r *record, sealed bool) {
	p := append([]byte(nil), b...)
	var mask [aead.MaskBytes]byte
	s.header.Mask(&mask, (*[aead.SampleBytes]byte)(p[lane.HeaderBytes:]))
	p[0] ^= mask[0] & 0x1f
	low := binary.BigEndian.Uint32(p[9:]) ^ binary.BigEndian.Uint32(mask[1:])
	binary.BigEndian.PutUint32(p[9:], low)
	number := uint64(low) // no schedule is long enough for more than 32 bits
	for k := len(s.keys) - 1; k >= 0; k-- {
		if byte(s.keys[k].epoch&1)<<2 != p[0]&4 {
			continue
		}
		nonce := s.keys[k].key.IV()
		binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^number)
		frames, err := s.keys[k].key.AEAD().Open(nil, nonce[:], p[lane.HeaderBytes:], p[:lane.HeaderBytes])
		if err != nil {
			continue
		}
		r := &record{to: s, number: number, epoch: s.keys[k].epoch, payload: b}
		if !lane.ParseFrames(frames, &r.frames) {
			s.tap.w.failf("packet %d has malformed frames", number)
		}
		r.datagram = r.frames.Datagram.Payload != nil
		return r, true
	}
	return nil, false
}

// sent looks at a datagram as it leaves a host.
func (t *tap) sent(h *Host, d *Datagram) {
	nd := t.w.nodeOf(h)
	if nd == nil || len(d.Payload) < lane.MinPacketBytes || d.Payload[0]&0x80 != 0 {
		return // the attacker's, or a session's
	}
	to := t.byID[lane.ConnectionID(d.Payload[1:])]
	if to == nil || to.twin == nil || to.twin.nd != nd {
		t.w.failf("node %d sends a packet to a connection ID that its peer has not issued", nd.index)
		return
	}
	r, ok := to.open(d.Payload)
	if !ok {
		t.w.failf("node %d seals a packet that its peer cannot open", nd.index)
		return
	}
	r.id, r.from, r.place, r.at = d.ID, nd, d.To, t.w.net.Nanos()
	if to.numbers[r.number] {
		t.w.failf("node %d seals packet number %d twice (epoch %d)", nd.index, r.number, r.epoch)
	}
	to.numbers[r.number] = true
	if to.twin.closed {
		t.w.failf("node %d sends on a lane that is closed", nd.index)
	}
	if *packets {
		t.w.logf("node %d: sends %d to %v: number %d, epoch %d, frames %05b, %d bytes", nd.index, d.ID, d.To, r.number, r.epoch,
			r.frames.Set, len(d.Payload))
	}
	t.records[d.ID] = r
	if len(t.recent) == 64 {
		t.recent = t.recent[1:]
	}
	t.recent = append(t.recent, r)
	to.twin.sends(r, d, len(d.Payload))
}

// sends holds what an end sends against what it may send there.
func (s *side) sends(r *record, d *Datagram, bytes int) {
	w := s.tap.w
	p := s.place(d.To)
	if r.frames.Set.Has(lane.HasPathChallenge) {
		s.challenges[r.frames.Challenge] = d.To
	}
	p.spent += bytes
	if !p.valid && p.spent > 3*p.credit {
		w.failf("node %d has sent %d bytes to %v, where %d have come from and no response", s.nd.index, p.spent, d.To,
			p.credit)
	}
	if r.datagram {
		if !p.valid {
			w.failf("node %d sends a packet of its host to %v, which has not responded", s.nd.index, d.To)
		}
		if p.dataAt == 0 {
			p.dataAt = w.net.Nanos()
		}
		s.lastData, s.lastDataAt = d.To, w.net.Nanos()
		s.longest = max(s.longest, bytes)
		if d.ECN != notECT && !w.style.ecn {
			w.failf("node %d marks what is not marked inside", s.nd.index)
		}
	} else if d.ECN != notECT {
		w.failf("node %d marks a packet of its own", s.nd.index)
	}
}

func (s *side) place(a netip.AddrPort) *place {
	p := s.places[a]
	if p == nil {
		p = &place{}
		s.places[a] = p
	}
	return p
}

// arrived looks at a datagram as it comes to a host.
func (t *tap) arrived(h *Host, d *Datagram) {
	r := t.records[d.ID]
	nd := t.w.nodeOf(h)
	if *packets && nd != nil {
		t.w.logf("node %d: gets %d from %v", nd.index, d.ID, d.From)
	}
	if r == nil || nd == nil || d.Corrupt || r.to.nd != nd {
		return
	}
	s := r.to
	if !r.taken {
		r.taken = true
		s.place(d.From).credit += len(d.Payload)
	}
	s.lastFrom = d.From
	if s.firstFrom[d.From] == 0 {
		s.firstFrom[d.From] = t.w.net.Nanos()
	}
	if r.frames.Set.Has(lane.HasPathResponse) {
		if where, asked := s.challenges[r.frames.Response]; asked {
			s.place(where).valid = true
		}
	}
}

// opened is told of every packet that an end has opened.
func (t *tap) opened(nd *node, d *Datagram, number uint64) {
	r := t.records[d.ID]
	switch {
	case d.Corrupt:
		t.w.failf("node %d opens a damaged packet", nd.index)
	case r == nil:
		t.w.failf("node %d opens a packet that nobody has sealed", nd.index)
	case r.to.nd != nd || r.number != number:
		t.w.failf("node %d opens packet %d as number %d", nd.index, r.number, number)
	case t.seen[r.id]:
		t.w.failf("node %d opens packet %d twice", nd.index, number)
	default:
		t.seen[r.id] = true
	}
}

func (w *world) nodeOf(h *Host) *node {
	for _, nd := range w.nodes {
		if nd.host == h {
			return nd
		}
	}
	return nil
}

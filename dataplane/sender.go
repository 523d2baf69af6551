package dataplane

import (
	"slices"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
	"github.com/aethertunnel/aethertunnel/tun"
)

const (
	// serveBatch is how many queued packets are taken from a queue at once, and serveBytes about how many bytes: what
	// comes later waits for no more than that.
	serveBatch, serveBytes = 64, 64 << 10
	// stageBatch is how many packets a thread collects before it puts them into queues.
	stageBatch = 64
	// maxTrains is how many runs of equally long lane packets go into one system call.
	maxTrains = udp.MaxBatch
)

// sender is what a thread needs to bring packets to peers: it collects them, puts them into queues, and empties the
// queues into lanes. Each thread has its own.
type sender struct {
	e *Engine

	staged   [stageBatch]*buffer // to be queued by commit
	stagedTo [stageBatch]*peer
	stagedN  int
	active   []*peer // whose queues may not be empty, and are ours to look after

	batch [serveBatch]*buffer

	// Of the lane being served.
	lane    *Lane
	sealer  *lane.Sealer
	way     *way
	out     []byte // sealed packets, one system call's worth
	used    int
	trains  [maxTrains]udp.Outgoing // runs of equally long packets in out, but for the last of each
	n       int
	open    bool // the last train may grow
	packets int  // in the last train

	now    int64
	full   int       // length of the longest packets that the path carries
	clamp  int       // what TCP connections are made to fit, in bytes of inner packet; 0 is anything
	sealed sentBatch // lane packets of this turn
	inner  struct{ packets, bytes uint64 }
	report [lane.MaxReportBytes]byte
}

func (e *Engine) newSender() *sender {
	return &sender{e: e, out: make([]byte, udp.MaxSendBytes)}
}

// stage takes a packet over, to be queued by the next commit.
func (s *sender) stage(p *peer, b *buffer, nowNanos int64) {
	if s.stagedN == stageBatch {
		s.commit(nowNanos)
	}
	s.staged[s.stagedN], s.stagedTo[s.stagedN] = b, p
	s.stagedN++
}

// commit queues what was staged, the packets of one peer that follow each other under one lock.
func (s *sender) commit(nowNanos int64) {
	for from := 0; from < s.stagedN; {
		p, to := s.stagedTo[from], from+1
		for to < s.stagedN && s.stagedTo[to] == p {
			to++
		}
		if s.e.push(p, s.staged[from:to], nowNanos) {
			if !slices.Contains(s.active, p) {
				s.active = append(s.active, p)
			}
		} else {
			s.undeliverable(p, s.staged[from:to])
		}
		from = to
	}
	clear(s.staged[:s.stagedN])
	clear(s.stagedTo[:s.stagedN])
	s.stagedN = 0
}

// undeliverable drops packets for a peer that nothing reaches.
func (s *sender) undeliverable(p *peer, batch []*buffer) {
	for _, b := range batch {
		s.e.drop(DropNoSession)
		if p.isAway() {
			s.e.answerAway(b)
		}
		s.e.buffers.put(b)
	}
}

// serve sends one batch for each active peer, and forgets those that have nothing more for us to send. It reports
// whether any are left.
func (s *sender) serve(nowNanos int64) bool {
	left := s.active[:0]
	for _, p := range s.active {
		if s.servePeer(p, nowNanos) {
			left = append(left, p)
		}
	}
	clear(s.active[len(left):])
	s.active = left
	return len(left) > 0
}

// servePeer sends one batch of a peer's packets over its lane and reports whether there may be more for us: what another
// thread serves, or a carrier takes, is not ours.
func (s *sender) servePeer(p *peer, nowNanos int64) bool {
	l := p.lane.Load()
	return l != nil && s.serveLane(l, nowNanos)
}

// serveLane seals what a lane itself has to say and, if it is the peer's, one batch of the peer's packets.
func (s *sender) serveLane(l *Lane, nowNanos int64) bool {
	if !l.serving.CompareAndSwap(false, true) {
		return false
	}
	able := s.begin(l, nowNanos)
	if able {
		if l.hasControl.Load() {
			s.sendControl(l.takeControl())
		}
		if l.carries() {
			n := s.e.pop(l.peer, s.batch[:], serveBytes, nowNanos)
			for _, b := range s.batch[:n] {
				s.send(b)
				s.e.buffers.put(b)
			}
			clear(s.batch[:n])
		}
		s.end()
	}
	s.lane, s.sealer, s.way = nil, nil, nil
	l.serving.Store(false)
	return able && (l.carries() && l.peer.waiting.Load() > 0 || l.hasControl.Load())
}

// begin prepares to seal for a lane. It reports whether the lane can seal.
func (s *sender) begin(l *Lane, nowNanos int64) bool {
	s.lane, s.sealer, s.now = l, l.sealer.Load(), nowNanos
	if s.sealer == nil || l.stopped.Load() {
		return false
	}
	s.sealer.Begin()
	s.way = l.way.Load()
	s.sealer.SetID(s.way.id)
	s.full, s.clamp = int(l.packetBytes.Load()), 0
	if l.searched.Load() {
		s.clamp = s.full - innerOverheadBytes
	}
	s.sealed = sentBatch{first: s.sealer.NextNumber()}
	return true
}

// end sends what is sealed, with a report behind it if one is due, and lets go of the lane.
func (s *sender) end() {
	if s.sealed.packets > 0 {
		if frames := s.lane.path.dueReport(s.report[:0], s.now); len(frames) > 0 {
			s.sealFrames(frames, 0, s.way.to)
		}
	}
	s.flush()
	if s.sealed.packets == 0 {
		return
	}
	if s.inner.packets > 0 { // which the peer has to report
		s.lane.peer.sentPackets.Add(s.inner.packets)
		s.lane.peer.sentBytes.Add(s.inner.bytes)
		s.inner.packets, s.inner.bytes = 0, 0
		s.sealed.asking = true
	}
	s.lane.sealed.Store(s.sealer.NextNumber())
	s.lane.path.sent(&s.sealed, s.now)
}

// sendControl seals what the lane itself has to say.
func (s *sender) sendControl(packets []controlPacket) {
	for _, c := range packets {
		before := s.sealed.longest
		if c.probe { // what is too long for a path is lost with all of its train, where trains are forwarded whole
			s.open = false
		}
		if c.by != nil {
			s.sealer.SetID(c.by.id)
			s.sealFrames(c.frames, 0, c.by.to)
			s.sealer.SetID(s.way.id)
		} else {
			s.sealFrames(c.frames, 0, s.way.to)
		}
		if c.probe {
			s.sealed.longest, s.open = before, false
		}
		s.sealed.asking = s.sealed.asking || c.asks
	}
}

// send seals a packet, or the segments of a super-packet.
func (s *sender) send(b *buffer) {
	o, data := b.packet.Offload, b.packet.Data
	ecn := uint8(packet.Encapsulate(packet.ReadECN(data)))
	if o.Segmentation != tun.SegmentNone {
		s.sendSegments(b, ecn)
		return
	}
	if s.clamp != 0 && b.header.Protocol == packet.ProtocolTCP {
		packet.ClampMSS(data, s.clamp, o.PartialChecksum)
	}
	split := len(data) > s.lane.maxInnerBytes()
	if split && !s.maySplit(b, len(data)) {
		return
	}
	context := uint8(plainContext)
	if o.PartialChecksum {
		// The peer finds the checksum by parsing; what it would not find is completed here.
		if start, at, ok := packet.TransportChecksum(data); ok && start == o.ChecksumStart && at == o.ChecksumOffset {
			context = s.lane.partialContext
		}
		if split || context == plainContext {
			context = plainContext
			if !packet.Complete(data, o.ChecksumStart, o.ChecksumOffset) {
				s.e.drop(DropOffload)
				return
			}
		}
	}
	if split {
		s.sendPieces(b, 0, len(data), ecn)
		return
	}
	s.sealPacket(b.framed(0, len(data), lane.DatagramHeaderBytes), context, ecn)
}

// sendSegments cuts a super-packet while it seals it: the headers of each segment are written right before its payload,
// over the end of the payload before, which has been sealed into another buffer already.
func (s *sender) sendSegments(b *buffer, ecn uint8) {
	cutter, ok := packet.NewCutter(b.packet.Data, b.packet.Offload)
	if !ok {
		s.e.drop(DropOffload)
		return
	}
	_, first := cutter.Payload(0)
	headers := cutter.HeaderBytes()
	split := headers+first > s.lane.maxInnerBytes()
	if split && !s.maySplit(b, headers+first) {
		return
	}
	context := s.lane.partialContext
	if split {
		context = plainContext
	}
	partial := context != plainContext
	from := 0
	if b.marked && cutter.Segments() > 1 {
		from = 1
		s.e.drop(DropQueueDelay)
	}
	for k := from; k < cutter.Segments(); k++ {
		at, n := cutter.Payload(k)
		frames := b.framed(at-headers, at+n, lane.DatagramHeaderBytes)
		cutter.PutHeader(frames[lane.DatagramHeaderBytes:], k, partial)
		switch {
		case !split:
			ok = s.sealPacket(frames, context, ecn)
		default:
			ok = s.sendPieces(b, at-headers, at+n, ecn)
		}
		if !ok {
			s.e.drops[DropLaneKey].Add(uint64(cutter.Segments() - 1 - k))
			return
		}
	}
}

// maySplit reports whether a packet of that many bytes, which is too long for the lane, is to be sent in pieces: while the
// length that the path carries is being searched for, and always up to what every link of IPv6 has to carry, or where a
// router would fragment. Of any other the sender is told.
func (s *sender) maySplit(b *buffer, packetBytes int) bool {
	if s.lane.pieceContext != plainContext && (!s.lane.searched.Load() || packetBytes <= packet.MinIPv6MTUBytes ||
		packet.MayFragment(b.packet.Data)) {
		return true
	}
	s.e.drop(DropTooBig)
	s.e.answerTooBig(b.packet.Data, max(s.lane.maxInnerBytes(), s.lane.leastInnerBytes()))
	return false
}

// sendPieces seals the packet from from to to in b piece by piece, the header of each over the end of the one before.
func (s *sender) sendPieces(b *buffer, from, to int, ecn uint8) bool {
	room := s.full - lane.OverheadBytes - lane.DatagramHeaderBytes
	split, ok := s.lane.pieces.Split(to-from, room)
	if !ok {
		s.e.drop(DropTooBig)
		return true
	}
	for k := range split.Pieces() {
		first, end := split.Piece(k)
		frames := b.framed(from+first, from+end, lane.DatagramHeaderBytes+path.PieceHeaderBytes)
		split.PutHeader((*[path.PieceHeaderBytes]byte)(frames[lane.DatagramHeaderBytes:]), k)
		if !s.seal(frames, s.lane.pieceContext, ecn) {
			return false
		}
	}
	s.inner.packets++
	s.inner.bytes += uint64(to - from)
	return true
}

// sealPacket makes a lane packet of an inner packet with room for the frame's header before it.
func (s *sender) sealPacket(frames []byte, context, ecn uint8) bool {
	if !s.seal(frames, context, ecn) {
		return false
	}
	s.inner.packets++
	s.inner.bytes += uint64(len(frames) - lane.DatagramHeaderBytes)
	return true
}

// seal makes a lane packet of a DATAGRAM frame, whose header it writes.
func (s *sender) seal(frames []byte, context, ecn uint8) bool {
	lane.PutDatagramHeader((*[lane.DatagramHeaderBytes]byte)(frames), s.lane.quarterStreamID, context)
	return s.sealFrames(frames, ecn, s.way.to)
}

// sealFrames makes a lane packet and puts it into a train.
func (s *sender) sealFrames(frames []byte, ecn uint8, to *udp.Destination) bool {
	bytes := lane.OverheadBytes + len(frames)
	if s.used+bytes > len(s.out) {
		s.flush()
	}
	if _, verdict := s.sealer.Seal(s.out[s.used:], frames); verdict != lane.VerdictOK {
		s.e.drop(DropLaneKey)
		s.lane.leave() // until there is another key packets go through the carrier
		return false
	}
	s.sealed.packets++
	s.sealed.bytes += bytes
	s.sealed.longest = max(s.sealed.longest, bytes)
	if bytes >= s.full {
		s.sealed.full++
	}
	t := &s.trains[max(s.n-1, 0)]
	if !s.open || bytes > t.SegmentBytes || ecn != t.ECN || to != t.To || s.packets == udp.MaxSegments {
		if s.n == maxTrains {
			s.flushSealed(bytes)
		}
		t = &s.trains[s.n]
		*t = udp.Outgoing{Data: s.out[s.used:s.used], SegmentBytes: bytes, ECN: ecn, To: to}
		s.n++
		s.open, s.packets = true, 0
	}
	s.used += bytes
	s.packets++
	t.Data = t.Data[:len(t.Data)+bytes]
	if bytes < t.SegmentBytes {
		s.open = false // only the last packet of a train may be shorter
	}
	return true
}

// flushSealed sends all trains but keeps the packet of that many bytes that was sealed behind them.
func (s *sender) flushSealed(bytes int) {
	from := s.used
	s.flush()
	copy(s.out, s.out[from:from+bytes])
}

// flush sends all trains.
func (s *sender) flush() {
	for trains := s.trains[:s.n]; len(trains) > 0; {
		sent, err := s.lane.conn.SendBatch(trains)
		if err == nil {
			break
		}
		lost := &trains[sent]
		s.e.drops[DropSend].Add(uint64((len(lost.Data) + lost.SegmentBytes - 1) / lost.SegmentBytes))
		s.lane.sendFailed(err)
		trains = trains[sent+1:]
	}
	s.used, s.n, s.open = 0, 0, false
}

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
	"github.com/aethertunnel/aethertunnel/dataplane/sched"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

const (
	// receiveBytes is about how much is received at once: the number of messages follows from how long they are.
	receiveBytes = 256 << 10
	// minMessages is how many messages are received at once when each is full.
	minMessages = 4
	// socketTargetNanos is how long packets may stand in a socket's queue where opening them takes longer than sending
	// them did, and socketIntervalNanos for how long they may do so for longer (RFC 8289). The queue of a socket is
	// everybody's: what stands in it delays all flows alike.
	socketTargetNanos, socketIntervalNanos = 500_000, 50_000_000
	// bulkBytes is the least length of packets that may be marked or dropped for that: what delays others comes in
	// packets as long as can be.
	bulkBytes = 1000
)

// receiver takes the datagrams of a socket, opens those of lanes and brings their packets to where they go, before it
// takes more. All others are QUIC's.
type receiver struct {
	e        *Engine
	conn     *udp.Conn
	messages [udp.MaxBatch]udp.Message
	wanted   int // how many messages to receive next
	inbound  inbound
	queue    sched.Marker // of the socket's own queue
	mark     bool         // the next long packet is to tell its sender of congestion

	id         lane.ConnectionID // of the last packet of a lane
	lane       *Lane
	opener     *lane.Opener
	from       path.Address // of the path in use
	last       *udp.Message // that a packet of the lane was in
	reportable int          // packets of this lane in this batch that are to be reported
	frames     lane.Frames
	joining    []*Lane // whose packets have come in pieces
	now        int64
}

// Receive serves a socket until ctx ends or the socket is closed, when it returns nil. Before Run no lane is there, and
// all it does is to pass datagrams on to QUIC.
func (e *Engine) Receive(ctx context.Context, conn *udp.Conn) error {
	r := &receiver{
		e: e, conn: conn, inbound: inbound{e: e, sender: e.newSender()},
		queue: sched.Marker{TargetNanos: socketTargetNanos, IntervalNanos: socketIntervalNanos},
	}
	for i := range r.messages {
		r.messages[i].Data = make([]byte, udp.MaxReceiveBytes)
	}
	r.wanted = len(r.messages)
	for {
		n, err := conn.Receive(r.messages[:r.wanted])
		if ctx.Err() != nil || errors.Is(err, udp.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("dataplane: receive: %w", err)
		}
		r.wanted = r.take(n)
	}
}

// take handles received messages and returns how many to receive next.
func (r *receiver) take(n int) int {
	now, bytes, clock := r.e.now(), 0, time.Now().UnixNano()
	r.now = now
	r.inbound.begin(now)
	standing := n == r.wanted
	if !standing {
		r.queue.Congested(0, now, false) // the queue was found empty: nothing stands in it
	}
	for i := range r.messages[:n] {
		m := &r.messages[i]
		bytes += len(m.Data)
		if standing && m.ArrivedNanos != 0 && len(m.Data) >= bulkBytes {
			r.mark = r.queue.Congested(clock-m.ArrivedNanos, now, true) || r.mark
		}
		if err := r.message(&r.messages[i], now); err != nil {
			// The device is gone, which the reader notices too and tells.
			return len(r.messages)
		}
	}
	r.leave()
	err := r.inbound.end()
	r.joining = slices.DeleteFunc(r.joining, r.tidyPieces)
	if err != nil {
		return len(r.messages)
	}
	return min(max(receiveBytes*n/(bytes+1), minMessages), len(r.messages))
}

// message takes the datagrams of one message.
func (r *receiver) message(m *udp.Message, nowNanos int64) error {
	rest := m.Data
	for len(rest) > 0 {
		datagram := rest[:min(max(m.SegmentBytes, 1), len(rest))]
		rest = rest[len(datagram):]
		l, ours := r.find(datagram)
		switch {
		case !ours:
			if reset := r.e.resets.find(datagram); reset != nil {
				reset.fail(lane.ReasonReset)
				continue
			}
			r.conn.DeliverDatagram(m, datagram)
		case l == nil:
			r.e.drop(DropLaneForged)
		case l == r.e.lanes.ended:
			r.e.drop(DropLaneEnded)
		default:
			if err := r.open(l, m, datagram, nowNanos); err != nil {
				return err
			}
		}
	}
	return nil
}

// find returns the lane that a datagram is for. ours is false for a datagram that is QUIC's, or nobody's; without a lane,
// one that is ours is to be dropped.
func (r *receiver) find(datagram []byte) (l *Lane, ours bool) {
	const longHeader, fixed = 0x80, 0x40 // RFC 9000 section 17.3.1
	if len(datagram) < lane.MinPacketBytes || datagram[0]&(longHeader|fixed) != fixed {
		return nil, false
	}
	id := lane.ConnectionID(datagram[1:])
	if r.lane != nil && id == r.id {
		return r.lane, true
	}
	if l = r.e.lanes.find(id); l == nil {
		return nil, false
	}
	if l == r.e.lanes.ended {
		return l, true
	}
	// A lane's packet at another socket than its own is nobody's: QUIC there would answer it with a stateless reset.
	opener := l.opener.Load()
	if opener == nil || l.conn != r.conn {
		return nil, true
	}
	r.leave()
	r.id, r.lane, r.opener, r.from = id, l, opener, l.address()
	r.inbound.from(l)
	return l, true
}

// leave lets go of a lane, which may be closed before its next packet comes.
func (r *receiver) leave() {
	l := r.lane
	if l == nil {
		return
	}
	l.highest.Store(r.opener.NextNumber())
	if report, ok := r.opener.Report(r.now); ok && r.last != nil {
		batch := receivedBatch{
			report: report, reportable: r.reportable, from: l.addressOf(r.last), local: r.last.Local,
		}
		l.path.received(&batch, r.now)
	}
	r.lane, r.last, r.reportable = nil, nil, 0
}

// open takes a packet of a lane. The error means that the device is gone.
func (r *receiver) open(l *Lane, m *udp.Message, datagram []byte, nowNanos int64) error {
	frames, number, verdict := r.opener.Open(datagram, nowNanos)
	if verdict != lane.VerdictOK {
		if r.refused(verdict); verdict == lane.VerdictClosed {
			l.fail(lane.ReasonForgery)
		}
		return nil
	}
	r.opener.CountECN(m.ECN)
	from := l.addressOf(m)
	r.last = m
	if from != r.from {
		l.path.elsewhere(from, number, number+1 == r.opener.NextNumber(), len(datagram), nowNanos)
		r.from = l.address()
	}
	if epoch, _ := r.opener.Epoch(); epoch+1 != l.toldEpoch {
		l.toldEpoch = epoch + 1
		l.everOpened.Store(true)
		l.settle()
		l.opened(epoch)
	}
	d, ok := lane.ParseDatagram(frames)
	if !ok {
		if !lane.ParseFrames(frames, &r.frames) {
			r.e.drop(DropLaneFrames)
			return nil
		}
		if path.Reportable(&r.frames) {
			r.reportable++
		}
		if l.path.heard(&r.frames, from, nowNanos) {
			l.settle()
		}
		r.from = l.address()
		if d = r.frames.Datagram; d.Payload == nil {
			return nil
		}
	} else {
		r.reportable++
	}
	if d.QuarterStreamID != l.quarterStreamID {
		r.e.drop(DropLaneFrames)
		return nil
	}
	return r.datagram(l, m, d, number)
}

// datagram takes the payload of a DATAGRAM frame.
func (r *receiver) datagram(l *Lane, m *udp.Message, d lane.Datagram, number uint64) error {
	p, ecn := d.Payload, packet.ECN(m.ECN)
	switch d.ContextID {
	case plainContext, l.takePartial:
	case l.takePieces:
		var congested bool
		if p, congested = r.piece(l, path.Piece{Payload: p, Number: number, Congested: ecn == packet.CE}); p == nil {
			return nil
		}
		if congested {
			ecn = packet.CE
		}
	default:
		r.e.drop(DropLaneFrames)
		return nil
	}
	if r.mark && len(p) >= bulkBytes {
		r.mark = false
		if len(p) < packet.MinIPv4HeaderBytes || !packet.SetCE(p) {
			r.e.drop(DropQueueDelay)
			return nil
		}
	}
	return r.inbound.add(p, d.ContextID != plainContext && d.ContextID == l.takePartial, ecn)
}

// piece returns the packet that a piece has completed, or nil, and whether one of its pieces was congested.
func (r *receiver) piece(l *Lane, piece path.Piece) (whole []byte, congested bool) {
	if l.joiner == nil {
		l.joiner = path.NewJoiner(r.e.pieces)
		r.joining = append(r.joining, l)
	}
	whole, congested, _ = l.joiner.Add(piece, r.now) // nil unless it is whole; drops are counted by tidyPieces
	return whole, congested
}

// tidyPieces lets go of the packets of a batch, which have gone their way, and of those that will not become whole. It
// reports whether the lane is over.
func (r *receiver) tidyPieces(l *Lane) bool {
	l.joiner.Release()
	l.joiner.Expire(r.now)
	over := l.over.Load()
	if over {
		l.joiner.Close()
	}
	stats := l.joiner.TakeStats()
	r.e.drops[DropPieces].Add(stats.Dropped())
	return over
}

func (r *receiver) refused(v lane.Verdict) {
	switch v {
	case lane.VerdictReplayed, lane.VerdictOld:
		r.e.drop(DropLaneReplayed)
	case lane.VerdictReserved:
		r.e.drop(DropLaneFrames)
	default:
		r.e.drop(DropLaneForged)
	}
}

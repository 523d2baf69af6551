package netsim

import (
	"slices"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
)

// sending is what there is to know of a packet to be sealed.
type sending struct{ asks, probe bool }

// seal sends a packet.
func (l *partsLane) seal(frames []byte, ecn uint8, to *partsEnd, what sending) bool {
	if l.sealer == nil || l.stopped {
		return false
	}
	l.sealer.Begin()
	l.sealer.SetID(to.id(l))
	out, now, number := make([]byte, lane.OverheadBytes+len(frames)), l.m.now(), l.sealer.NextNumber()
	n, verdict := l.sealer.Seal(out, frames)
	if verdict != lane.VerdictOK {
		l.m.nd.w.failf("node %d: seal: %v", l.m.nd.index, verdict)
		return false
	}
	full, longest := 0, n
	if n >= l.search.FullBytes() {
		full = 1
	}
	if what.probe {
		longest = 0
	}
	l.estimate.Sent(number, 1, n, full, now)
	l.search.Sent(longest, now)
	if what.asks {
		l.liveness.Sent(now)
	}
	if err := l.m.nd.socket.Send(to.at.Local, to.at.Remote, ecn, out[:n]); err != nil {
		l.search.Refused(n, now)
	}
	l.schedule()
	return true
}

// send seals a packet of the host, in pieces if need be.
func (l *partsLane) send(p []byte) {
	room := l.search.Size() - lane.OverheadBytes - lane.DatagramHeaderBytes
	ecn := p[1] & 3
	if ecn == ce {
		ecn = 2
	}
	if len(p) <= room {
		l.datagram(p, 0, ecn)
		return
	}
	if l.sends == 0 || l.search.Done() && len(p) > 1280 {
		return // its sender would be told
	}
	split, ok := l.splitter.Split(len(p), room)
	if !ok {
		l.m.nd.w.failf("no pieces of %d bytes for %d", room, len(p))
		return
	}
	for k := range split.Pieces() {
		var header [path.PieceHeaderBytes]byte
		split.PutHeader(&header, k)
		from, to := split.Piece(k)
		l.datagram(append(header[:], p[from:to]...), l.sends, ecn)
	}
}

func (l *partsLane) datagram(payload []byte, context, ecn uint8) {
	frames := append(lane.AppendDatagramHeader(nil, l.params.QuarterStreamID, context), payload...)
	l.seal(frames, ecn, l.active(), sending{asks: true})
}

// receive takes a datagram with a connection ID of the lane.
func (l *partsLane) receive(d *Datagram) {
	now, w := l.m.now(), l.m.nd.w
	p := slices.Clone(d.Payload)
	frames, number, verdict := l.opener.Open(p, now)
	if verdict != lane.VerdictOK {
		if d.ID != 0 && !d.Corrupt { // what is said of others depends on what is in them, which no seed decides
			w.logf("node %d: datagram %d: %v", l.m.nd.index, d.ID, verdict)
		}
		return
	}
	w.tap.opened(l.m.nd, d, number)
	l.opener.CountECN(d.ECN)
	from := addressOf(d, l.params.Side == keyschedule.Server)
	l.from(from, number, number+1 == l.opener.NextNumber(), len(d.Payload), now)
	if epoch, _ := l.opener.Epoch(); epoch+1 != l.toldEpoch {
		l.toldEpoch, l.heard = epoch+1, true
		l.settle()
		l.opened()
	}
	var f lane.Frames
	if !lane.ParseFrames(frames, &f) {
		w.failf("node %d: malformed frames", l.m.nd.index)
		return
	}
	if path.Reportable(&f) {
		l.reporter.Arrived(1)
	}
	l.frames(&f, from, now)
	if f.Datagram.Payload != nil {
		l.payload(f.Datagram, packet.ECN(d.ECN), number, now)
	}
	l.schedule()
}

// deliver brings a packet to the host, with what its lane packets have met on the way (RFC 6040).
func (l *partsLane) deliver(p []byte, ecn packet.ECN) {
	if ecn == packet.NotECT || packet.Decapsulate(ecn, p) != packet.DecapsulationDrop {
		l.m.nd.deliver(p)
	}
}

// payload takes what a DATAGRAM frame carries.
func (l *partsLane) payload(d lane.Datagram, ecn packet.ECN, number uint64, now int64) {
	w := l.m.nd.w
	if d.QuarterStreamID != l.params.QuarterStreamID {
		w.failf("node %d: packet of another stream", l.m.nd.index)
		return
	}
	switch d.ContextID {
	case 0:
		l.deliver(d.Payload, ecn)
	case l.takes:
		piece := path.Piece{Payload: d.Payload, Number: number, Congested: ecn == packet.CE}
		p, congested, result := l.joiner.Add(piece, now)
		switch result {
		case path.PieceJoined:
			w.counts.joined++
			if congested {
				ecn = packet.CE
			}
			l.deliver(p, ecn)
		case path.PieceDropped:
			w.logf("node %d: piece in packet %d dropped: %+v", l.m.nd.index, number, l.joiner.TakeStats())
		case path.PieceTaken:
		}
		l.joiner.Release()
		if in := l.m.pieces.InUseBytes(); in > pieceLimitBytes || l.joiner.Unfinished() > path.MaxUnfinished {
			w.failf("node %d: %d bytes of %d unfinished packets", l.m.nd.index, in, l.joiner.Unfinished())
		}
	default:
		w.failf("node %d: packet of context %d", l.m.nd.index, d.ContextID)
	}
}

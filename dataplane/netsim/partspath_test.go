package netsim

import (
	"encoding/binary"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
)

// partsEnd is the end of one path at the peer, with a connection ID of its own as long as there are any.
type partsEnd struct {
	at     path.Address
	issued lane.IssuedID
	own    bool
}

// id is the connection ID of packets for that end.
func (e *partsEnd) id(l *partsLane) lane.ConnectionID {
	if e.own {
		return e.issued.ID
	}
	return l.active().issued.ID
}

// active is the end of the path in use.
func (l *partsLane) active() *partsEnd {
	_, index := l.validation.Active()
	return &l.ends[index]
}

// end is the end of a path, made anew if its index was another's.
func (l *partsLane) end(index int, a path.Address) *partsEnd {
	e := &l.ends[index]
	if e.at == a {
		return e
	}
	if e.own {
		l.retired = append(l.retired, e.issued.Sequence)
	}
	*e = partsEnd{at: a}
	if len(l.spare) > 0 {
		e.issued, e.own, l.spare = l.spare[0], true, l.spare[1:]
	}
	return e
}

// from follows the peer to where a packet has come from.
func (l *partsLane) from(from path.Address, number uint64, highest bool, bytes int, now int64) {
	active, _ := l.validation.Active()
	if active != from && active == (path.Address{Remote: from.Remote}) {
		_, index := l.validation.Active() // the same place
		l.ends[0], l.ends[index] = l.ends[index], l.ends[0]
		l.validation, l.ends[0].at = path.NewValidation(from, now), from
		return
	}
	before := l.active()
	l.moved(l.validation.Received(from, number, highest, bytes, now), before, now)
}

// moved follows the validation from one path to another.
func (l *partsLane) moved(r path.Roaming, before *partsEnd, now int64) {
	if r != path.RoamingMoved {
		return
	}
	l.m.nd.w.counts.moves++
	active, index := l.validation.Active()
	l.m.nd.w.logf("node %d: moves from %v to %v", l.m.nd.index, before.at.Remote, active.Remote)
	if e := l.end(index, active); !e.own {
		e.issued, e.own, before.own = before.issued, true, false
	}
	l.estimate = path.NewEstimate()
	l.search.Restart(l.searchConfig(l.search.Size()), now)
}

// frames takes in everything but a DATAGRAM.
func (l *partsLane) frames(f *lane.Frames, from path.Address, now int64) {
	arrives := false
	if f.Set.Has(lane.HasPathChallenge) {
		answer := lane.AppendPathResponse(nil, f.Challenge)
		if active, _ := l.validation.Active(); active == from || l.validation.MaySend(from, path.ChallengeBytes) {
			l.seal(answer, 0, l.end(l.validation.Index(from), from), sending{})
		}
	}
	if f.Set.Has(lane.HasPathResponse) {
		if arrives = l.search.Answered(f.Response, now); !arrives {
			before := l.active()
			r, _ := l.validation.Responded(f.Response, now)
			l.moved(r, before, now)
			arrives = r == path.RoamingMoved
		}
	}
	if f.Set.Has(lane.HasReport) {
		if i, ok := l.estimate.Reported(&f.Report, now); ok {
			arrives = arrives || i.Received > 0 || i.Sent == 0
			l.search.SetRTT(l.estimate.RTTNanos())
			l.search.Reported(i.Full, i.Lost(), now)
		}
	}
	if f.Set.Has(lane.HasPing) {
		l.report(now)
	}
	if arrives {
		l.liveness.Heard()
		l.suspect = false
		l.settle()
	}
}

func (l *partsLane) report(now int64) {
	if r, ok := l.opener.Report(now); ok {
		l.reporter.Sent(now)
		l.seal(lane.AppendReport(nil, &r), 0, l.active(), sending{})
	}
}

// schedule has keep called in time.
func (l *partsLane) schedule() {
	if l.sealer == nil || l.closed {
		return
	}
	if size := l.search.Size(); size != l.size {
		l.size = size
		l.m.nd.w.logf("node %d: packets to %d have at most %d bytes", l.m.nd.index, l.peer.index, size)
	}
	next := min(l.search.NextNanos(), l.validation.NextNanos(), l.reporter.NextNanos(), l.liveness.NextNanos())
	if next >= l.keepAt {
		return
	}
	l.keepAt = max(next, l.m.now())
	at := l.keepAt
	l.m.nd.w.net.After(at-l.m.now(), func() {
		if l.keepAt == at && !l.closed {
			l.keepAt = path.Never
			l.keep(at)
			l.schedule()
		}
	})
}

// keep does what is due.
func (l *partsLane) keep(now int64) {
	for l.search.Due(now) {
		data := l.m.nd.w.pathData()
		bytes, ok := l.search.Probe(data, now)
		if !ok {
			break
		}
		frames := lane.AppendPathChallenge(nil, data)
		frames = lane.AppendPadding(frames, bytes-lane.OverheadBytes-len(frames))
		l.seal(frames, 0, l.active(), sending{probe: true})
	}
	for now >= l.validation.NextNanos() {
		data := l.m.nd.w.pathData()
		c, ok := l.validation.Challenge(data, now)
		if !ok {
			break
		}
		l.seal(lane.AppendPathChallenge(nil, data), 0, l.end(c.Path, c.To), sending{asks: true})
	}
	if l.reporter.Due(now) {
		l.report(now)
	}
	sign := l.liveness.Check(now)
	if sign != path.SignNone {
		l.Ping()
	}
	if sign == path.SignSuspect {
		l.suspect = true
		l.m.nd.w.logf("node %d: lane with %d is suspect", l.m.nd.index, l.peer.index)
		l.leave()
		before := l.active()
		l.moved(l.validation.FallBack(now), before, now)
	}
}

// pathData is the content of a challenge.
func (w *world) pathData() (d lane.PathData) {
	w.nextData++
	binary.BigEndian.PutUint64(d[:], w.nextData*0xd1342543de82ef95)
	return d
}

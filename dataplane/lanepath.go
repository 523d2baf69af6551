package dataplane

import (
	"crypto/rand"
	"net/netip"
	"sync"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

const (
	// minLanePacketBytes4 and 6 are the UDP payloads of the smallest links that IPv4 and IPv6 have to work on: 576 and
	// 1,280 bytes (RFC 791, RFC 8200).
	minLanePacketBytes4, minLanePacketBytes6 = 576 - 28, 1280 - 48
)

// lanePath is what a lane knows of its way through the network. Its lock is taken once per batch.
type lanePath struct {
	l *Lane

	mu         sync.Mutex // guards the rest; taken under no other lock but Lane.serving
	search     *path.Search
	validation *path.Validation
	estimate   *path.Estimate
	reporter   path.Reporter
	liveness   path.Liveness
	ends       pathEnds
	local      netip.Addr  // ours, as the last packet has it
	report     lane.Report // of the last batch received
	hasReport  bool
	reportAt   int64 // when report was made
	pinged     bool  // the batch being received asks for a report
	keepAt     int64 // when the keeper looks at the lane next
}

func newLanePath(l *Lane, to *udp.Destination, packetBytes int, nowNanos int64) *lanePath {
	if l.conn.InFragments(to.To()) {
		packetBytes = 0 // the session's packets have shown nothing: the search begins with the least
	}
	p := &lanePath{
		l: l, estimate: path.NewEstimate(),
		validation: path.NewValidation(addressOf(to), nowNanos),
	}
	p.ends.l = l
	p.ends.begin(to, l.params.PeerIDs[:])
	p.search = path.NewSearch(p.searchConfig(to.To().Addr(), packetBytes), nowNanos)
	return p
}

// addressOf is the path to a destination.
func addressOf(to *udp.Destination) path.Address {
	local, index := to.From()
	return path.Address{Remote: to.To(), Local: local, InterfaceIndex: index}
}

func (p *lanePath) searchConfig(remote netip.Addr, baseBytes int) path.SearchConfig {
	floor := minLanePacketBytes6
	if remote.Is4() {
		floor = minLanePacketBytes4
	}
	return path.SearchConfig{
		BaseBytes: baseBytes, FloorBytes: floor, CeilingBytes: p.l.params.SendBytes, RTTNanos: p.estimate.RTTNanos(),
	}
}

// sentBatch is what a sender has sealed in one go.
type sentBatch struct {
	first   uint64 // packet number
	packets int
	bytes   int
	full    int  // packets as long as the path carries
	longest int  // bytes
	asking  bool // for an answer: there were packets of peers, or pings
}

// sent takes in what was sent.
func (p *lanePath) sent(b *sentBatch, nowNanos int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.estimate.Sent(b.first, b.packets, b.bytes, b.full, nowNanos)
	p.search.Sent(b.longest, nowNanos)
	if b.asking {
		p.liveness.Sent(nowNanos)
	}
	p.schedule()
}

// receivedBatch is what came of a lane in one go.
type receivedBatch struct {
	report     lane.Report
	reportable int          // packets
	from       path.Address // of the last packet
	local      netip.Addr   // where that came to
}

// received takes in what came. That says nothing about what was sent: only answers and reports do.
func (p *lanePath) received(b *receivedBatch, nowNanos int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report, p.hasReport, p.reportAt = b.report, true, nowNanos
	p.reporter.Arrived(b.reportable)
	if p.pinged {
		p.pinged = false
		p.l.say(controlPacket{frames: p.takeReport(nil, nowNanos)})
	}
	if active, _ := p.validation.Active(); active == b.from {
		// The lane stays, whatever else is being validated: a later packet has come this way.
		p.validation.Received(active, b.report.Highest, true, 0, nowNanos)
	}
	if p.l.params.Side == keyschedule.Client && b.local != p.local {
		// We have moved, as the peer's packets show.
		if p.local.IsValid() {
			p.ends.renew()
		}
		p.local = b.local
	}
	p.schedule()
}

// elsewhere is told of a packet that came from another address than the one in use.
func (p *lanePath) elsewhere(from path.Address, number uint64, highest bool, bytes int, nowNanos int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if active, _ := p.validation.Active(); active == (path.Address{Remote: from.Remote}) {
		// The same place: all that is new is which of our addresses it writes to.
		if to, err := p.l.conn.NewDestination(from.Remote, from.Local, from.InterfaceIndex); err == nil {
			p.validation = path.NewValidation(from, nowNanos)
			p.ends.restart(to)
		}
		return
	}
	p.moved(p.validation.Received(from, number, highest, bytes, nowNanos), nowNanos)
	p.schedule()
}

// try asks a path that control knows of. From which of our addresses it goes is the system's choice.
func (p *lanePath) try(to path.Address, nowNanos int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.validation.Try(to, nowNanos)
	p.schedule()
}

// moved follows the validation.
func (p *lanePath) moved(r path.Roaming, nowNanos int64) {
	if r != path.RoamingMoved {
		return
	}
	active, index := p.validation.Active()
	if p.ends.at(index, active) == nil {
		return
	}
	p.ends.use(index)
	p.estimate = path.NewEstimate()
	p.search.Restart(p.searchConfig(active.Remote.Addr(), int(p.l.packetBytes.Load())), nowNanos)
	p.settleSize()
}

// heard takes in the frames of a packet besides DATAGRAM. It reports whether the lane was suspect and is not any more.
func (p *lanePath) heard(f *lane.Frames, from path.Address, nowNanos int64) (recovered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	arrives := false
	if f.Set.Has(lane.HasPathChallenge) {
		p.answer(f.Challenge, from)
	}
	if f.Set.Has(lane.HasPathResponse) {
		if arrives = p.search.Answered(f.Response, nowNanos); !arrives {
			roaming, _ := p.validation.Responded(f.Response, nowNanos)
			p.moved(roaming, nowNanos)
			arrives = roaming == path.RoamingMoved
		}
	}
	if f.Set.Has(lane.HasReport) {
		if i, ok := p.estimate.Reported(&f.Report, nowNanos); ok {
			arrives = arrives || i.Received > 0 || i.Sent == 0
			p.search.SetRTT(p.estimate.RTTNanos())
			p.search.Reported(i.Full, i.Lost(), nowNanos)
		}
	}
	p.pinged = p.pinged || f.Set.Has(lane.HasPing)
	if arrives {
		recovered = p.liveness.Heard()
		p.l.suspect.Store(false)
	}
	p.settleSize()
	p.schedule()
	return recovered
}

// answer sends a challenge back to where it came from (RFC 9000 section 8.2.2).
func (p *lanePath) answer(data lane.PathData, from path.Address) {
	frames := lane.AppendPathResponse(nil, data)
	if active, _ := p.validation.Active(); active == from {
		p.l.say(controlPacket{frames: frames})
		return
	}
	index := p.validation.Index(from)
	if index < 0 || !p.validation.MaySend(from, path.ChallengeBytes) {
		return
	}
	if end := p.ends.at(index, from); end != nil {
		p.l.say(controlPacket{frames: frames, by: p.ends.way(end)})
	}
}

// dueReport appends a report frame if one is due, for the sender to put into its last packet.
func (p *lanePath) dueReport(dst []byte, nowNanos int64) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hasReport || !p.reporter.Due(nowNanos) {
		return dst
	}
	return p.takeReport(dst, nowNanos)
}

func (p *lanePath) takeReport(dst []byte, nowNanos int64) []byte {
	r := p.report
	r.DelayMicros += uint64(max(nowNanos-p.reportAt, 0)) / 1000
	p.reporter.Sent(nowNanos)
	return lane.AppendReport(dst, &r)
}

// refused is told of the length of a packet that the interface did not take.
func (p *lanePath) refused(bytes int, nowNanos int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.search.Refused(bytes, nowNanos)
	p.settleSize()
	p.schedule()
}

// settleSize makes the lane send what the search has found.
func (p *lanePath) settleSize() {
	p.l.packetBytes.Store(int64(p.search.Size()))
	p.l.searched.Store(p.search.Done())
	if p.search.Done() { // the session, which cannot search below 1,200 bytes, learns it from the lane
		p.l.conn.Carries(p.l.way.Load().to.To(), p.search.Size())
	}
}

// schedule has the keeper look at the lane in time.
func (p *lanePath) schedule() {
	if next := p.next(); next < p.keepAt {
		p.keepAt = next
		p.l.engine.keeper.schedule(p.l, next)
	}
}

// begin has the keeper look at the lane from now on: it can seal. Before that keepAt is 0, and nothing is earlier.
func (p *lanePath) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keepAt = p.next()
	p.l.engine.keeper.schedule(p.l, p.keepAt)
}

func (p *lanePath) next() int64 {
	return min(p.search.NextNanos(), p.validation.NextNanos(), p.reporter.NextNanos(), p.liveness.NextNanos())
}

// keep does what is due, if anything is, and tells the keeper when to call again.
func (p *lanePath) keep(nowNanos int64) {
	p.mu.Lock()
	sign := p.doDue(nowNanos)
	p.keepAt = p.next()
	p.l.engine.keeper.again(p.l, p.keepAt)
	p.mu.Unlock()
	if sign == path.SignSuspect {
		p.l.leave()
	}
}

// doDue does what is due and returns what liveness says.
func (p *lanePath) doDue(nowNanos int64) path.Sign {
	for p.search.Due(nowNanos) {
		data := randomData()
		bytes, ok := p.search.Probe(data, nowNanos)
		if !ok {
			break
		}
		frames := lane.AppendPathChallenge(make([]byte, 0, bytes), data)
		frames = lane.AppendPadding(frames, bytes-lane.OverheadBytes-len(frames))
		p.l.say(controlPacket{frames: frames, probe: true})
	}
	for nowNanos >= p.validation.NextNanos() {
		data := randomData()
		c, ok := p.validation.Challenge(data, nowNanos)
		if !ok {
			break
		}
		if end := p.ends.at(c.Path, c.To); end != nil {
			p.l.say(controlPacket{frames: lane.AppendPathChallenge(nil, data), by: p.ends.way(end), asks: true})
		}
	}
	if p.hasReport && p.reporter.Due(nowNanos) {
		p.l.say(controlPacket{frames: p.takeReport(nil, nowNanos)})
	}
	sign := p.liveness.Check(nowNanos)
	if sign != path.SignNone {
		p.l.say(controlPacket{frames: lane.AppendPing(nil), asks: true})
	}
	if sign == path.SignSuspect {
		p.l.suspect.Store(true)
		p.moved(p.validation.FallBack(nowNanos), nowNanos)
	}
	p.settleSize()
	return sign
}

// randomData is fresh and unpredictable. crypto/rand ends the program rather than fail.
func randomData() (data lane.PathData) {
	_, _ = rand.Read(data[:])
	return data
}

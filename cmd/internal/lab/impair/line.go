package impair

import "time"

// maxWireBytes bounds the memory of frames that have left the transmitter and not arrived yet: 2 s of 1
// Gbit/s.
const maxWireBytes = 256 << 20

// Never is the answer of [Line.Next] when nothing is under way.
const Never = time.Duration(1<<63 - 1)

// A Verdict says what became of a frame when it was offered.
type Verdict uint8

// The verdicts on an offered frame.
const (
	Accepted  Verdict = iota // it is under way, and may still be lost behind the transmitter
	Blocked                  // BlockAll or BlockUDP
	Oversized                // longer than MTU
	QueueFull                // no room in the FIFO
)

// String returns the verdict in lower case, as in a log.
func (v Verdict) String() string {
	switch v {
	case Accepted:
		return "accepted"
	case Blocked:
		return "blocked"
	case Oversized:
		return "oversized"
	case QueueFull:
		return "queue full"
	}
	return "unknown verdict"
}

// Counters tell what happened to frames so far. At any time
//
//	Offered + Duplicated = Delivered + Blocked + Oversized + QueueFull + Lost + WireFull + Queued + OnWire.
//
// Bytes are those of IP packets, without the Ethernet header.
type Counters struct {
	Offered, OfferedBytes     int64
	Delivered, DeliveredBytes int64

	Blocked   int64 // dropped by BlockAll or BlockUDP
	Oversized int64 // dropped for MTU
	QueueFull int64 // dropped in front of the transmitter
	Lost      int64 // dropped behind the transmitter, by chance
	WireFull  int64 // dropped behind the transmitter: more than 256 MiB were under way

	Duplicated int64 // copies made
	Reordered  int64 // frames held back
	Neighbour  int64 // frames of address resolution, which chance, rate and MTU spare

	Queued int64 // frames now in the FIFO or the transmitter
	OnWire int64 // frames now behind the transmitter
}

// A Line is one direction of a link. Times are durations since a moment of the caller's choice and
// never run backwards; an earlier time than the last one counts as the last one. A Line is for one
// goroutine at a time.
type Line struct {
	set  Impairments
	dice dice
	now  time.Duration

	fifo       ring[packet]  // the first one is in the transmitter
	waiting    int64         // IP bytes in fifo behind the first packet
	headDone   time.Duration // when the transmitter is through with the first packet
	carry      int64         // the part of a nanosecond owed to the transmitter, in 1/BitsPerSecond
	wire, held ring[packet]  // frames in order, and those held back; each by rising due time
	lastDue    time.Duration // of wire
	heldDue    time.Duration // of held
	wireBytes  int64
	wireLimit  int64 // of wireBytes
	departures uint64

	buffers bufferPool
	taken   []byte // what the last Take lent out
	count   Counters
}

// packet is a frame under way with what chance has in store for it.
type packet struct {
	frame     []byte
	fate      fate
	due       time.Duration // on the wire: time of arrival
	departure uint64        // on the wire: breaks ties of due
}

// NewLine returns a line that does nothing to frames until [Line.Set].
func NewLine(seed uint64) *Line { return &Line{dice: dice{seed: seed}, wireLimit: maxWireBytes} }

// Set changes what happens from now on. Frames that have left the transmitter keep their time of
// arrival, the one in the transmitter keeps its rate, and order is kept between frames of before and
// after.
func (l *Line) Set(now time.Duration, i Impairments) error {
	if err := i.Validate(); err != nil {
		return err
	}
	l.advance(now)
	if i.BitsPerSecond != l.set.BitsPerSecond {
		l.carry = 0
	}
	l.set = i
	return nil
}

// Offer puts a copy of an Ethernet frame at the near end of the line.
func (l *Line) Offer(now time.Duration, frame []byte) Verdict {
	l.advance(now)
	c := classify(frame)
	bytes := int64(ipBytes(frame))
	l.count.Offered++
	l.count.OfferedBytes += bytes
	if c == neighbour {
		return l.offerNeighbour(frame)
	}
	fate := l.dice.next(l.set)
	switch {
	case l.set.BlockAll, l.set.BlockUDP && c == udp:
		l.count.Blocked++
		return Blocked
	case l.set.MTU > 0 && bytes > int64(l.set.MTU):
		l.count.Oversized++
		return Oversized
	}
	p := packet{fate: fate}
	if l.set.BitsPerSecond == 0 && l.fifo.len() == 0 {
		p.frame = l.buffers.copy(frame)
		l.depart(p, l.now)
		return Accepted
	}
	if l.fifo.len() > 0 {
		if l.set.BitsPerSecond > 0 && l.waiting+bytes > l.set.queueBytes() {
			l.count.QueueFull++
			return QueueFull
		}
		l.waiting += bytes
	}
	p.frame = l.buffers.copy(frame)
	l.fifo.push(p)
	if l.fifo.len() == 1 {
		l.transmit(l.now)
	}
	return Accepted
}

// offerNeighbour carries frames that keep the two ends of the emulated wire acquainted. The line stands
// for a path of many hops, of which these frames are no part, so only its length and a cut concern
// them.
func (l *Line) offerNeighbour(frame []byte) Verdict {
	l.count.Neighbour++
	if l.set.BlockAll {
		l.count.Blocked++
		return Blocked
	}
	l.enterWire(packet{frame: l.buffers.copy(frame)}, l.now+l.set.Delay)
	return Accepted
}

// transmit starts sending the first packet of the FIFO at a time.
func (l *Line) transmit(at time.Duration) {
	l.headDone = at
	if l.set.BitsPerSecond == 0 {
		return
	}
	bitNanos := int64(ipBytes(l.fifo.first().frame))*8*int64(time.Second) + l.carry
	l.headDone += time.Duration(bitNanos / l.set.BitsPerSecond)
	l.carry = bitNanos % l.set.BitsPerSecond
}

// advance lets everything happen that happens up to a time, except arrivals.
func (l *Line) advance(now time.Duration) {
	l.now = max(l.now, now)
	for l.fifo.len() > 0 && l.headDone <= l.now {
		p := l.fifo.pop()
		l.depart(p, l.headDone)
		if l.fifo.len() > 0 {
			l.waiting -= int64(ipBytes(l.fifo.first().frame))
			l.transmit(l.headDone)
		}
	}
}

// depart puts a packet on the wire at the time the transmitter was through with it.
func (l *Line) depart(p packet, at time.Duration) {
	if p.fate.lost {
		l.count.Lost++
		l.buffers.put(p.frame)
		return
	}
	due := at + l.set.Delay + time.Duration(p.fate.jitter*float64(l.set.Jitter))
	if p.fate.duplicated {
		twin := p
		twin.fate.duplicated = false
		twin.frame = l.buffers.copy(p.frame)
		l.count.Duplicated++
		l.enterWire(p, due)
		l.enterWire(twin, due)
		return
	}
	l.enterWire(p, due)
}

func (l *Line) enterWire(p packet, due time.Duration) {
	if l.wireBytes+int64(len(p.frame)) > l.wireLimit {
		l.count.WireFull++
		l.buffers.put(p.frame)
		return
	}
	l.wireBytes += int64(len(p.frame))
	l.departures++
	p.departure = l.departures
	due = max(due, l.lastDue)
	if p.fate.reordered {
		l.count.Reordered++
		l.heldDue = max(l.heldDue, due+l.set.ReorderDelay)
		p.due = l.heldDue
		l.held.push(p)
		return
	}
	l.lastDue = due
	p.due = due
	l.wire.push(p)
}

// Take returns the next frame that has arrived at the far end, or false if there is none at that time.
// The frame is valid until the next Take or Offer.
func (l *Line) Take(now time.Duration) ([]byte, bool) {
	l.buffers.put(l.taken)
	l.taken = nil
	l.advance(now)
	from := l.nextArrival()
	if from == nil || from.first().due > l.now {
		return nil, false
	}
	p := from.pop()
	l.wireBytes -= int64(len(p.frame))
	l.count.Delivered++
	l.count.DeliveredBytes += int64(ipBytes(p.frame))
	l.taken = p.frame
	return p.frame, true
}

// Next returns when to call [Line.Take] again: the earliest time at which a frame may arrive, or
// [Never]. A frame in the transmitter counts with the moment it leaves that.
func (l *Line) Next() time.Duration {
	next := Never
	if from := l.nextArrival(); from != nil {
		next = from.first().due
	}
	if l.fifo.len() > 0 {
		next = min(next, l.headDone)
	}
	return next
}

// nextArrival returns the ring whose first packet arrives first, nil if both are empty.
func (l *Line) nextArrival() *ring[packet] {
	switch {
	case l.wire.len() == 0 && l.held.len() == 0:
		return nil
	case l.held.len() == 0:
		return &l.wire
	case l.wire.len() == 0:
		return &l.held
	}
	w, h := l.wire.first(), l.held.first()
	if h.due < w.due || h.due == w.due && h.departure < w.departure {
		return &l.held
	}
	return &l.wire
}

// Counters returns the counters as of the last call that took a time.
func (l *Line) Counters() Counters {
	c := l.count
	c.Queued = int64(l.fifo.len())
	c.OnWire = int64(l.wire.len() + l.held.len())
	return c
}

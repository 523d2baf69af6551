package path

import "github.com/aethertunnel/aethertunnel/dataplane/lane"

const (
	minRTTSpanNanos   = 10 * second
	delaySpanNanos    = 8 * second // a clock that runs 100 ppm too fast adds 0.8 ms in that time
	recentBucketNanos = 250 * millisecond
	// RecentNanos is over how long loss, marks and rate are taken.
	RecentNanos = windowBuckets * recentBucketNanos

	minSpacingNanos, maxSpacingNanos = 50 * microsecond, 4 * millisecond
)

// Estimate measures a path from the reports of the other end. Make it anew for every new path.
type Estimate struct {
	ring    sentRing
	recent  sumWindow
	minRTT  minWindow
	minOne  minWindow
	last    lane.Report
	lastTo  sentUpTo
	reports uint64

	rttNanos, varNanos, latestNanos, leastNanos int64
	variationNanos                              int64
}

// NewEstimate makes an estimate, of about 1 KB, and up to 14 KB while the path is in use.
func NewEstimate() *Estimate {
	e := &Estimate{
		recent: sumWindow{bucketNanos: recentBucketNanos},
		minRTT: newMinWindow(minRTTSpanNanos), minOne: newMinWindow(delaySpanNanos),
	}
	e.ring.spacingNanos = minSpacingNanos
	return e
}

// Sent is told once per batch what was sealed and sent: packets numbered from first on, their bytes of UDP payload, and
// how many of them were full (at least [Search.FullBytes]). Numbers that are never sent, such as those that a hand-over
// skips, are no losses.
func (e *Estimate) Sent(first uint64, packets, bytes, full int, nowNanos int64) {
	if packets > 0 {
		e.ring.add(first, packets, bytes, full, nowNanos)
	}
}

// Interval is what one report has said beyond those before it.
type Interval struct {
	// Sent and Received are packets. Received is greater where packets arrived that the report before had to take for lost.
	Sent, Received int64
	// Full is how many full packets were among those sent, at least.
	Full int64
	// RTTNanos is the round trip time that the report shows, or 0 where it shows none.
	RTTNanos int64
}

// Lost returns how many packets did not arrive, or a negative number when others did after all.
func (i Interval) Lost() int64 { return i.Sent - i.Received }

// Reported is told of a report that has come. It returns false for one that says nothing new: it was overtaken, or
// speaks of packets that were not sent.
func (e *Estimate) Reported(r *lane.Report, nowNanos int64) (Interval, bool) {
	to, ok := e.ring.upTo(r.Highest)
	if !ok || e.reports > 0 && (r.Highest < e.last.Highest || r.Received <= e.last.Received) {
		return Interval{}, false
	}
	first := e.reports == 0
	advanced := first || r.Highest > e.last.Highest
	i := Interval{}
	switch {
	case advanced && to.exact:
		i.RTTNanos = e.sample(r, to.nanos, nowNanos)
	case advanced: // forgotten before its report came: the ring must last longer
		e.ring.spacingNanos = min(2*e.ring.spacingNanos, maxSpacingNanos)
	}
	// Of a first report only the counts since the first packet known here would be of use.
	if !first || to.packets == r.Highest+1 {
		i.Sent = int64(to.packets - min(to.packets, e.lastTo.packets))
		i.Received = int64(r.Received - e.last.Received)
		i.Full = int64(to.fullMin - min(to.fullMin, e.lastTo.fullMost))
		e.count(&i, r, to, nowNanos)
	}
	e.last, e.lastTo = *r, to
	e.reports++
	return i, true
}

// count adds an interval to the recent ones.
func (e *Estimate) count(i *Interval, r *lane.Report, to sentUpTo, nowNanos int64) {
	c := counts{sent: i.Sent, received: i.Received}
	if e.reports > 0 && to.bytes > e.lastTo.bytes && i.Sent > 0 { // when the first began to arrive is not known
		c.bytes = int64(float64(to.bytes-e.lastTo.bytes) * min(float64(i.Received)/float64(i.Sent), 1))
	}
	marked := r.ECT0 + r.ECT1 + r.CE
	if before := e.last.ECT0 + e.last.ECT1 + e.last.CE; marked >= before && r.CE >= e.last.CE {
		c.marked, c.ce = int64(marked-before), int64(r.CE-e.last.CE)
	}
	e.recent.add(c, nowNanos)
}

// sample takes the times in a report in and returns the round trip time, or 0.
func (e *Estimate) sample(r *lane.Report, sentNanos, nowNanos int64) int64 {
	rtt := nowNanos - sentNanos - int64(r.DelayMicros)*microsecond
	if rtt <= 0 {
		return 0 // the other end is mistaken
	}
	least := e.minRTT.add(rtt, nowNanos)
	e.leastNanos, e.latestNanos = least, rtt
	if e.rttNanos == 0 {
		e.rttNanos, e.varNanos = rtt, rtt/2 // RFC 6298 section 2
	} else {
		e.varNanos += (max(e.rttNanos-rtt, rtt-e.rttNanos) - e.varNanos) / 4
		e.rttNanos += (rtt - e.rttNanos) / 8
	}
	e.ring.spacingNanos = min(max(e.rttNanos/64, minSpacingNanos), maxSpacingNanos)

	oneWay := int64(r.ArrivalMicros)*microsecond - sentNanos // plus how far the clocks are apart
	e.variationNanos = oneWay - e.minOne.add(oneWay, nowNanos)
	return rtt
}

// Reading is what is known about a path. Zero times and rates are not known yet.
type Reading struct {
	// RTTNanos is the smoothed round trip time and RTTVarNanos its mean deviation (RFC 6298); LatestRTTNanos is the
	// last sample and MinRTTNanos the least of about 10 s.
	RTTNanos, RTTVarNanos, LatestRTTNanos, MinRTTNanos int64
	// DelayVariationNanos is how much longer than the fastest of about 8 s the last reported packet was on its way to
	// the other end: the queue that it met.
	DelayVariationNanos int64
	// LossRatio is how much of what was sent recently has not arrived, CERatio how much of what arrived with an ECN
	// codepoint said that it had met congestion.
	LossRatio, CERatio float64
	// DeliveredBytesPerSecond is how fast lane packets have arrived recently: a lower bound of what the path carries.
	DeliveredBytesPerSecond float64
	// Reports is how many reports have said something new.
	Reports uint64
}

// Reading returns what is known. Ratios and rate are over the last [RecentNanos].
func (e *Estimate) Reading(nowNanos int64) Reading {
	r := Reading{
		RTTNanos: e.rttNanos, RTTVarNanos: e.varNanos, LatestRTTNanos: e.latestNanos, MinRTTNanos: e.leastNanos,
		DelayVariationNanos: e.variationNanos, Reports: e.reports,
	}
	sum, span := e.recent.sum(nowNanos)
	if sum.sent > 0 {
		r.LossRatio = max(0, float64(sum.sent-sum.received)/float64(sum.sent))
	}
	if sum.marked > 0 {
		r.CERatio = float64(sum.ce) / float64(sum.marked)
	}
	if span >= recentBucketNanos {
		r.DeliveredBytesPerSecond = float64(sum.bytes) * second / float64(span)
	}
	return r
}

// RTTNanos returns the smoothed round trip time, or 0 when it is not known yet.
func (e *Estimate) RTTNanos() int64 { return e.rttNanos }

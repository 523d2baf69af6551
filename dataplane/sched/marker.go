package sched

// Marker is CoDel (RFC 8289) for a queue that is not ours, such as a socket's: it is told how long each item waited there
// and says which of them are to tell their senders of congestion, by a mark or by their loss. The zero Marker is ready
// but for its parameters. It is for one goroutine.
type Marker struct {
	// TargetNanos is the standing delay that is accepted, IntervalNanos for how long there may be more.
	TargetNanos, IntervalNanos int64

	codel codel
}

// Congested reports whether the item taken from the queue at nowNanos, where it was for sojournNanos, is to be marked or
// dropped. standing is false where the queue is known to hold nothing more.
func (m *Marker) Congested(sojournNanos, nowNanos int64, standing bool) bool {
	c := &m.codel
	if !c.above(sojournNanos, nowNanos, m.TargetNanos, m.IntervalNanos, standing) {
		c.dropping = false
		return false
	}
	if !c.dropping {
		c.begin(nowNanos, m.IntervalNanos)
		return true
	}
	if nowNanos < c.dropNextNanos {
		return false
	}
	c.count++
	c.dropNextNanos = c.law(c.dropNextNanos, m.IntervalNanos)
	return true
}

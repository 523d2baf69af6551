package sched

import "math"

// codel is the state of RFC 8289 section 5.5 for one flow.
type codel struct {
	firstAboveNanos int64 // when the delay will have been above the target for an interval; 0: it is below
	dropNextNanos   int64
	count           uint32 // drops and marks since dropping began
	lastCount       uint32
	dropping        bool
}

// memoryIntervals is for how many intervals the rate of drops is remembered (RFC 8289 section 5.5).
const memoryIntervals = 16

// above reports whether an item that waited for sojournNanos may be dropped. standing says that more than
// maxpacket stays in the queue behind it.
func (c *codel) above(sojournNanos, nowNanos, targetNanos, intervalNanos int64, standing bool) bool {
	if sojournNanos < targetNanos || !standing {
		c.firstAboveNanos = 0
		return false
	}
	if c.firstAboveNanos == 0 {
		c.firstAboveNanos = nowNanos + intervalNanos
		return false
	}
	return nowNanos >= c.firstAboveNanos
}

// begin enters the dropping state, with the rate of the last time if that was not long ago.
func (c *codel) begin(nowNanos, intervalNanos int64) {
	delta := c.count - c.lastCount
	c.count = 1
	if delta > 1 && nowNanos-c.dropNextNanos < memoryIntervals*intervalNanos {
		c.count = delta
	}
	c.dropping = true
	c.dropNextNanos = c.law(nowNanos, intervalNanos)
	c.lastCount = c.count
}

// law is the time of the next drop: the rate grows with the square root of the drops so far.
func (c *codel) law(fromNanos, intervalNanos int64) int64 {
	return fromNanos + int64(float64(intervalNanos)/math.Sqrt(float64(c.count)))
}

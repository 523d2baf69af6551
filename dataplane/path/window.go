package path

import "math"

// windowBuckets is how many parts a sliding window has: it forgets one of them at a time.
const windowBuckets = 8

// minWindow is the least value of the last bucketNanos × windowBuckets.
type minWindow struct {
	bucketNanos int64
	bucket      int64
	least       [windowBuckets]int64
}

func newMinWindow(spanNanos int64) minWindow {
	w := minWindow{bucketNanos: spanNanos / windowBuckets, bucket: math.MinInt64}
	w.clear()
	return w
}

func (w *minWindow) clear() {
	for i := range w.least {
		w.least[i] = math.MaxInt64
	}
}

// add takes a value in and returns the least.
func (w *minWindow) add(value, nowNanos int64) int64 {
	now := max(nowNanos/w.bucketNanos, w.bucket)
	if w.bucket == math.MinInt64 || now-w.bucket >= windowBuckets {
		w.clear()
	} else {
		for b := w.bucket + 1; b <= now; b++ {
			w.least[uint64(b)%windowBuckets] = math.MaxInt64
		}
	}
	w.bucket = now
	at := &w.least[uint64(now)%windowBuckets]
	*at = min(*at, value)
	least := int64(math.MaxInt64)
	for _, v := range w.least {
		least = min(least, v)
	}
	return least
}

// counts is what reports say about some time.
type counts struct{ sent, received, bytes, marked, ce int64 }

func (c *counts) add(d counts) {
	c.sent += d.sent
	c.received += d.received
	c.bytes += d.bytes
	c.marked += d.marked
	c.ce += d.ce
}

// sumWindow is the sum of the last bucketNanos × windowBuckets.
type sumWindow struct {
	bucketNanos int64
	bucket      int64
	firstNanos  int64
	parts       [windowBuckets]counts
	started     bool
}

// forward makes now the current time.
func (w *sumWindow) forward(nowNanos int64) {
	now := nowNanos / w.bucketNanos
	if !w.started {
		w.started, w.bucket, w.firstNanos = true, now, nowNanos
		return
	}
	if now-w.bucket >= windowBuckets {
		clear(w.parts[:])
		w.bucket = now
	}
	for w.bucket < now {
		w.bucket++
		w.parts[uint64(w.bucket)%windowBuckets] = counts{}
	}
}

func (w *sumWindow) add(c counts, nowNanos int64) {
	w.forward(nowNanos)
	w.parts[uint64(w.bucket)%windowBuckets].add(c)
}

// sum returns the sum, and the time that it covers.
func (w *sumWindow) sum(nowNanos int64) (total counts, spanNanos int64) {
	if !w.started {
		return counts{}, 0
	}
	w.forward(nowNanos)
	for _, c := range w.parts {
		total.add(c)
	}
	from := (w.bucket - windowBuckets + 1) * w.bucketNanos
	return total, max(nowNanos-max(from, w.firstNanos), 0)
}

package path

const (
	// sentSamples is how many samples of what was sent are kept.
	sentSamples = 256
	// firstSentSamples is how many there is room for at first: a lane that is not used takes no more.
	firstSentSamples = 4
)

// sample is a run of packets that were sent at about one time. Bytes and full are sums over the lane's life.
type sample struct {
	first, next uint64 // packet numbers
	skipped     uint64 // numbers before first that no packet has had
	nanos       int64
	bytes       uint64
	full        uint64
}

// sentRing knows when the packets of the last few round trips were sent. The ring is what it was told, runs that
// came within spacingNanos of each other merged, so that it covers about 4 round trips at any rate.
type sentRing struct {
	samples      []sample // a power of two of them, up to sentSamples
	n            uint64   // samples ever
	spacingNanos int64
}

// last returns the newest sample; n is not 0.
func (r *sentRing) last() *sample { return r.at(r.n - 1) }

// at returns a sample that has not been forgotten. Samples move only while there have been no more than there is room
// for, and then to where they were.
func (r *sentRing) at(i uint64) *sample { return &r.samples[i&uint64(len(r.samples)-1)] }

// grow makes room for another sample, if there may be more.
func (r *sentRing) grow() {
	if r.n < uint64(len(r.samples)) || len(r.samples) == sentSamples {
		return
	}
	more := make([]sample, max(2*len(r.samples), firstSentSamples))
	copy(more, r.samples)
	r.samples = more
}

// add takes a run of packets in. It ignores one that is not after all others.
func (r *sentRing) add(first uint64, packets, bytes, full int, nowNanos int64) {
	s := sample{first: first, next: first + uint64(packets), nanos: nowNanos, skipped: first}
	if r.n > 0 {
		last := r.last()
		if first < last.next {
			return
		}
		gap := first - last.next
		if gap == 0 && nowNanos-last.nanos < r.spacingNanos {
			last.next = s.next
			last.bytes += uint64(bytes)
			last.full += uint64(full)
			return
		}
		s.skipped, s.bytes, s.full = last.skipped+gap, last.bytes, last.full
	}
	s.bytes += uint64(bytes)
	s.full += uint64(full)
	r.grow()
	*r.at(r.n) = s
	r.n++
}

// sentUpTo is what was sent up to a packet, over the lane's life.
type sentUpTo struct {
	packets           uint64
	bytes             uint64
	fullMost, fullMin uint64 // at most and at least so many of the packets were full
	nanos             int64  // when the packet was sent; only if exact
	exact             bool   // the packet is in the ring
}

// upTo looks a packet up. ok is false for a number that was not sent.
func (r *sentRing) upTo(number uint64) (u sentUpTo, ok bool) {
	if r.n == 0 || number >= r.last().next {
		return sentUpTo{}, false
	}
	oldest := r.n - min(r.n, sentSamples)
	low, high := oldest, r.n // find the first sample with next > number
	for low < high {
		if middle := low + (high-low)/2; r.at(middle).next > number {
			high = middle
		} else {
			low = middle + 1
		}
	}
	s := r.at(low)
	if number < s.first {
		if low > oldest {
			return sentUpTo{}, false // in a gap
		}
		// Forgotten, or sent by the process before: the sums were no greater than they are in the oldest sample.
		u = sentUpTo{packets: number + 1 - min(s.skipped, number+1), bytes: s.bytes, fullMost: s.full}
		return u, r.n > sentSamples || s.skipped > 0
	}
	u = sentUpTo{packets: number + 1 - s.skipped, nanos: s.nanos, exact: true}
	var before sample
	if low > oldest {
		before = *r.at(low - 1)
	} else if s.first > s.skipped {
		// What the sums were before the oldest sample is forgotten: take its end for both.
		u.bytes, u.fullMost = s.bytes, s.full
		return u, true
	}
	in, of := number+1-s.first, s.next-s.first
	u.bytes = before.bytes + (s.bytes-before.bytes)*in/of
	u.fullMost = min(s.full, before.full+in)
	u.fullMin = max(before.full, s.full-min(s.full, of-in))
	return u, true
}

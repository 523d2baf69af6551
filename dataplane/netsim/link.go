package netsim

import "slices"

// Conditions are what one direction of a link does to datagrams. The zero value is a perfect one. Ratios are
// probabilities, each drawn for every datagram.
type Conditions struct {
	// DelayNanos is how long every datagram takes, and JitterNanos how much longer by chance. Jitter alone changes no
	// order: what is ready early waits for what was sent before it.
	DelayNanos, JitterNanos int64
	// Loss, Duplicate, Corrupt and Reorder say how often a datagram is lost, comes twice, comes with a bit flipped, and
	// is held up for at most HoldNanos, in which others overtake it. A copy of a datagram is held up too.
	Loss, Duplicate, Corrupt, Reorder float64
	HoldNanos                         int64
	// MarkCE says how often a datagram that has an ECN codepoint is marked to have met congestion.
	MarkCE float64
	// MTUBytes is the longest IP packet that passes; longer ones are lost without a word, as where ICMP is filtered. 0 is
	// no bound.
	MTUBytes int
	// Dead loses everything.
	Dead bool
}

// ECN codepoints (RFC 3168 section 5).
const (
	notECT = 0
	ce     = 3
)

// direction is one direction of a link.
type direction struct {
	Conditions
	last int64 // when the last datagram arrives that was not held up
}

// carry brings a datagram, which has become the network's, to the end of a direction, if it gets there: perhaps twice.
func (n *Network) carry(l *direction, d *Datagram, arrive func(*Datagram)) {
	switch {
	case l.Dead:
		n.stats.Dead++
		return
	case l.MTUBytes > 0 && d.ipBytes() > l.MTUBytes:
		n.stats.TooLong++
		return
	case n.chance(l.Loss):
		n.stats.Lost++
		return
	}
	if d.ECN != notECT && n.chance(l.MarkCE) {
		d.ECN = ce
	}
	copied := *d
	if n.chance(l.Corrupt) {
		n.corrupt(d)
	}
	at := n.now + l.DelayNanos + n.upTo(l.JitterNanos)
	if n.chance(l.Reorder) {
		at += n.upTo(l.HoldNanos)
	} else {
		at = max(at, l.last)
		l.last = at
	}
	n.After(at-n.now, func() { arrive(d) })
	if n.chance(l.Duplicate) {
		n.stats.Duplicated++
		n.After(at-n.now+n.upTo(l.HoldNanos), func() { arrive(&copied) })
	}
}

// corrupt flips a bit.
func (n *Network) corrupt(d *Datagram) {
	if len(d.Payload) == 0 {
		return
	}
	n.stats.Corrupted++
	d.Payload, d.Corrupt = slices.Clone(d.Payload), true
	d.Payload[n.rng.IntN(len(d.Payload))] ^= 1 << n.rng.IntN(8)
}

package path

const (
	// SuspectNanos is how long packets may be sent with nothing coming back before a lane is suspect.
	SuspectNanos = 1500 * millisecond

	firstPingNanos = 500 * millisecond // after the first packet that nothing has come back for
	pingNanos      = 300 * millisecond // from then on, until the lane is suspect
	// A suspect lane is asked less and less often whether it is alive again.
	minRecoveryNanos, maxRecoveryNanos = 1 * second, 15 * second
)

// Sign is what [Liveness.Check] asks for.
type Sign uint8

// The signs.
const (
	// SignNone asks for nothing.
	SignNone Sign = iota
	// SignPing asks for a PING.
	SignPing
	// SignSuspect says that the lane has just become suspect: its packets belong to the session now. It asks for a PING
	// too.
	SignSuspect
)

// Liveness tells whether anything comes through a lane. The zero value is a lane that is alive.
type Liveness struct {
	waiting      bool
	asked        bool // by a PING, since waiting
	suspect      bool
	sinceNanos   int64 // first packet that nothing has come back for
	pingNanos    int64 // when to send the next PING
	backoffNanos int64
}

// Sent is told that packets were sent that the other end has to report, or to answer: those with a DATAGRAM, a PING or
// a PATH_CHALLENGE. Once per batch is enough.
func (l *Liveness) Sent(nowNanos int64) {
	if !l.waiting {
		l.waiting, l.sinceNanos, l.pingNanos = true, nowNanos, nowNanos+firstPingNanos
	}
}

// Heard is told that an authentic packet of the lane has come, and not from a path that is only being validated. It
// reports whether the lane was suspect, and is not any more. Once per batch is enough.
func (l *Liveness) Heard() (recovered bool) {
	recovered = l.suspect
	*l = Liveness{}
	return recovered
}

// Check is to be called from time to time, at [Liveness.NextNanos] at the latest.
func (l *Liveness) Check(nowNanos int64) Sign {
	if !l.waiting {
		return SignNone
	}
	if !l.asked && nowNanos >= l.pingNanos {
		// However late this is, as after the host has slept: nothing is suspect that has not been asked in good time.
		l.asked, l.sinceNanos = true, nowNanos-firstPingNanos
	}
	if !l.suspect && nowNanos-l.sinceNanos >= SuspectNanos {
		l.suspect, l.backoffNanos = true, minRecoveryNanos
		l.pingNanos = nowNanos + l.backoffNanos
		return SignSuspect
	}
	if nowNanos < l.pingNanos {
		return SignNone
	}
	wait := int64(pingNanos)
	if l.suspect {
		l.backoffNanos = min(2*l.backoffNanos, maxRecoveryNanos)
		wait = l.backoffNanos
	}
	l.pingNanos = nowNanos + wait
	return SignPing
}

// Suspect reports whether nothing has come back for [SuspectNanos].
func (l *Liveness) Suspect() bool { return l.suspect }

// NextNanos returns when Check has something to say if nothing comes, or [Never].
func (l *Liveness) NextNanos() int64 {
	switch {
	case !l.waiting:
		return Never
	case l.suspect:
		return l.pingNanos
	}
	return min(l.pingNanos, l.sinceNanos+SuspectNanos)
}

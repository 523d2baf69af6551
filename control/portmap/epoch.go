package portmap

import "time"

// The routers count the seconds since they last lost their mappings. Each protocol has its own rule for
// telling a restart from clock drift; both compare with the time that passed on this host's monotonic clock.

// pcpEpoch applies RFC 6887 section 8.5. The zero value has seen no response.
type pcpEpoch struct {
	seen   bool
	server int64 // seconds
	at     time.Time
}

// observe takes the epoch time of a response received now and reports whether the router may have lost its
// state.
func (e *pcpEpoch) observe(server uint32, now time.Time) (lost bool) {
	previous := *e
	*e = pcpEpoch{seen: true, server: int64(server), at: now}
	if !previous.seen {
		return false
	}
	if e.server < previous.server-1 {
		return true
	}
	clientDelta := int64(now.Sub(previous.at) / time.Second)
	serverDelta := e.server - previous.server
	return clientDelta+2 < serverDelta-serverDelta/16 || serverDelta+2 < clientDelta-clientDelta/16
}

// natpmpEpoch applies RFC 6886 section 3.6. The zero value has seen no response.
type natpmpEpoch struct {
	seen   bool
	server int64 // seconds
	at     time.Time
}

// observe takes the seconds since the start of the epoch of a response received now and reports whether the
// router has lost its state: the count is more than two seconds below what seven eighths of the passed time
// would give.
func (e *natpmpEpoch) observe(server uint32, now time.Time) (lost bool) {
	previous := *e
	*e = natpmpEpoch{seen: true, server: int64(server), at: now}
	if !previous.seen {
		return false
	}
	elapsed := int64(now.Sub(previous.at) / time.Second)
	return e.server < previous.server+elapsed*7/8-2
}

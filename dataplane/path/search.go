package path

import "github.com/aethertunnel/aethertunnel/dataplane/lane"

const (
	// raiseNanos is how often a longer packet is tried (PMTU_RAISE_TIMER, RFC 8899 section 5.1.1).
	raiseNanos = 600 * second
	// earlyRaiseNanos and the next are when it is tried the first two times: a search may have ended too low by losses
	// that had nothing to do with size.
	earlyRaiseNanos, secondRaiseNanos = 5 * second, 60 * second
	// confirmNanos is how long long packets are sent without knowing that they arrive before a probe finds out
	// (CONFIRMATION_TIMER), and minConfirmNanos how long at least where reports should have told.
	confirmNanos, minConfirmNanos = 1 * second, 300 * millisecond
	// maxMisses is how many probes of a size must be lost for it to be too long (MAX_PROBES).
	maxMisses = 3

	unknownRTTNanos  = 200 * millisecond
	minProbeNanos    = 30 * millisecond // what a probe may take beyond the round trip time
	maxSilenceNanos  = 5 * second       // between probes on a path that answers none
	probeMemoryNanos = 5 * second       // a later answer says nothing about the path of now

	maxBurst    = 12 // probes at once
	refineBurst = 8
	maxTested   = 32
	maxInFlight = 64
)

// commonBytes are the UDP payloads of common links, most of them less what common tunnels take: 9000, 1500, 1500 less
// PPPoE and others, 1400 and 1280 over IPv4 and IPv6, RFC 9000's least, 1124 and 576.
var commonBytes = [...]int{
	8972, 8952, 1472, 1452, 1432, 1420, 1392, 1372, 1352, 1320, 1252, 1232, 1200, 1096, 972, 548,
}

// SearchConfig says what is known about a path beforehand. Sizes are UDP payloads.
type SearchConfig struct {
	// BaseBytes is the length to begin with, thought to pass.
	BaseBytes int
	// FloorBytes is the least that a path must carry: 548 over IPv4, 1,232 over IPv6. Nothing shorter is tried.
	FloorBytes int
	// CeilingBytes is the most: what the other end takes, and the interface.
	CeilingBytes int
	// RTTNanos is about how long a round trip takes, or 0.
	RTTNanos int64
}

type searchPhase uint8

const (
	searchIdle    searchPhase = iota // the size is known
	searchFirst                      // nothing is known, or not any more
	searchConfirm                    // does the size still pass?
	searchRaise                      // does more pass?
)

// tested is a size of which probes were lost.
type tested struct{ bytes, misses int }

type probe struct {
	data  lane.PathData
	bytes int
	burst uint64
	nanos int64
}

// Search finds the longest lane packet that the path carries (RFC 8899): no ICMP message is ever believed, only probes
// that are answered. A probe is a lane packet of a PATH_CHALLENGE and PADDING.
//
// Probes go in bursts: sizes of common links first, then ever closer ones between the longest that passed and the
// shortest that was lost. Every burst has a probe of the floor. Lost probes count only if one of the burst was answered: a
// path that is dead for a while is not a path for short packets only.
type Search struct {
	cfg   SearchConfig
	phase searchPhase
	ended bool // the last search from below
	size  int
	limit int // what the interface takes, until the next raise
	low   int // passes, in this search
	top   int // the longest that is tried, in this search

	missed  []tested // ascending
	missedA [maxTested]tested

	plan       [maxBurst]int // sizes of the burst that are not sent yet
	planned    int
	burst      uint64
	bursts     int // of this search
	best       int // the longest answered of this burst, 0 for none
	silent     int // bursts without an answer
	nextNanos  int64
	sentNanos  int64 // last probe
	inFlight   [maxInFlight]probe
	inFlightN  uint64
	rttNanos   int64
	raiseNanos int64
	raises     int // since the last search from below

	watchNanos int64 // since when long packets are sent without knowing that they arrive, or Never
	watchFull  bool  // reports should have told
}

// NewSearch starts the first search: a burst is due at once.
func NewSearch(cfg SearchConfig, nowNanos int64) *Search {
	s := &Search{}
	s.Restart(cfg, nowNanos)
	return s
}

// Restart forgets everything and searches anew: for another path.
func (s *Search) Restart(cfg SearchConfig, nowNanos int64) {
	cfg.CeilingBytes = max(cfg.CeilingBytes, cfg.FloorBytes)
	cfg.BaseBytes = min(max(cfg.BaseBytes, cfg.FloorBytes), cfg.CeilingBytes)
	// burst goes on: an answer to a probe of before must not be taken for one of now.
	*s = Search{
		cfg: cfg, size: cfg.BaseBytes, limit: cfg.CeilingBytes, burst: s.burst, rttNanos: cfg.RTTNanos,
		raiseNanos: Never, watchNanos: Never,
	}
	s.begin(searchFirst, cfg.FloorBytes, cfg.CeilingBytes, nowNanos)
}

// Size returns the longest lane packet to be sent.
func (s *Search) Size() int { return s.size }

// FullBytes returns how long a packet must be to count as full in what [Estimate.Sent] is told.
func (s *Search) FullBytes() int { return s.size }

// Done reports whether Size is what the path carries. It is false until the first search has ended, and after a black
// hole or a refusal by the interface until the next one has: until then packets that are too long are to be split, not
// answered.
func (s *Search) Done() bool { return s.ended }

// NextNanos returns when probes will be due if nothing else happens, or [Never].
func (s *Search) NextNanos() int64 {
	if s.phase != searchIdle {
		if s.planned > 0 {
			return s.sentNanos
		}
		if s.phase != searchRaise {
			return s.nextNanos
		}
		return min(s.nextNanos, s.confirmAt())
	}
	return min(s.raiseNanos, s.confirmAt())
}

// Due reports whether Probe would return one.
func (s *Search) Due(nowNanos int64) bool { return nowNanos >= s.NextNanos() }

// confirmAt returns when it must be found out whether the size still passes.
func (s *Search) confirmAt() int64 {
	switch {
	case s.watchNanos == Never || s.size <= s.cfg.FloorBytes:
		return Never
	case s.watchFull:
		return s.watchNanos + s.fullWait()
	}
	return s.watchNanos + confirmNanos
}

// fullWait returns how long reports have time to tell that full packets arrive.
func (s *Search) fullWait() int64 { return min(max(3*s.rtt(), minConfirmNanos), confirmNanos) }

// SetRTT is told the smoothed round trip time of the path.
func (s *Search) SetRTT(rttNanos int64) { s.rttNanos = rttNanos }

func (s *Search) rtt() int64 {
	if s.rttNanos > 0 {
		return s.rttNanos
	}
	return unknownRTTNanos
}

// wait returns how long after its last probe a burst is over.
func (s *Search) wait() int64 {
	wait := max(s.rtt()*3/2, s.rtt()+minProbeNanos)
	for range s.silent {
		wait = min(2*wait, maxSilenceNanos)
	}
	return wait
}

// Sent is told once per batch the longest lane packet that was sent, probes aside.
func (s *Search) Sent(longestBytes int, nowNanos int64) {
	if longestBytes <= s.cfg.FloorBytes {
		return
	}
	full := longestBytes >= s.size
	if s.watchNanos == Never {
		s.watchNanos, s.watchFull = nowNanos, full
	} else if full && !s.watchFull {
		// Due as before, or after the shorter wait from now on.
		s.watchNanos, s.watchFull = min(s.watchNanos+confirmNanos-s.fullWait(), nowNanos), true
	}
}

// Reported is told what reports have said: of how many packets, full of them so many, lost of them so many arrived not.
// If fewer were lost than were full, full ones arrive. If not, a probe finds out.
func (s *Search) Reported(full, lost int64, nowNanos int64) {
	switch {
	case full <= 0:
	case lost < full:
		s.watchNanos = Never
	case s.phase == searchIdle && s.size > s.cfg.FloorBytes:
		s.confirm(nowNanos)
	}
}

// Probe returns the size of a probe that is due: a lane packet of PATH_CHALLENGE with data and PADDING, of exactly so many
// bytes, with nothing else in it. data must be unpredictable and fresh; it is used up only if the second result is true.
// Call it until that is false; a burst has at most 12 probes, and more are due at once only where the interface has
// refused all of them.
func (s *Search) Probe(data lane.PathData, nowNanos int64) (bytes int, ok bool) {
	if s.planned == 0 && !s.advance(nowNanos) {
		return 0, false
	}
	s.planned--
	bytes = s.plan[s.planned]
	s.inFlight[s.inFlightN%maxInFlight] = probe{data, bytes, s.burst, nowNanos}
	s.inFlightN++
	s.sentNanos = nowNanos
	s.nextNanos = nowNanos + s.wait()
	return bytes, true
}

// advance does what is due and reports whether there are probes to be sent.
func (s *Search) advance(nowNanos int64) bool {
	if nowNanos < s.NextNanos() {
		return false
	}
	if s.phase == searchIdle || s.phase == searchRaise && nowNanos >= s.confirmAt() {
		if nowNanos >= s.confirmAt() {
			s.confirm(nowNanos)
		} else {
			s.limit = s.cfg.CeilingBytes
			s.raises++
			s.begin(searchRaise, s.size, s.limit, nowNanos)
		}
	} else {
		s.endBurst(nowNanos)
	}
	if s.phase == searchIdle {
		return false
	}
	if s.planned == 0 {
		s.planBurst()
	}
	return s.planned > 0
}

// confirm finds out whether the size still passes.
func (s *Search) confirm(nowNanos int64) {
	s.begin(searchConfirm, s.cfg.FloorBytes, s.size, nowNanos)
}

// begin starts a search between a size that passes and one that may.
func (s *Search) begin(phase searchPhase, low, top int, nowNanos int64) {
	s.phase, s.low, s.top = phase, low, top
	if phase == searchFirst {
		s.ended = false
	}
	s.missed = s.missedA[:0]
	s.inFlight = [maxInFlight]probe{}
	s.burst++
	s.bursts, s.best, s.silent, s.planned = 0, 0, 0, 0
	s.watchNanos = Never
	s.nextNanos = nowNanos
	s.settle(nowNanos)
	if s.phase != searchIdle {
		s.planBurst()
		s.sentNanos = nowNanos
	}
}

// Answered is told of a PATH_RESPONSE. mine is false for one that answers no probe: it may be one of a [Validation].
func (s *Search) Answered(data lane.PathData, nowNanos int64) (mine bool) {
	for i := range s.inFlight {
		p := &s.inFlight[i]
		if p.bytes == 0 || p.data != data {
			continue
		}
		bytes, burst, age := p.bytes, p.burst, nowNanos-p.nanos
		*p = probe{}
		switch {
		case age >= probeMemoryNanos:
		case s.phase != searchIdle:
			s.rttNanos = max(age, 1)
			s.passed(bytes, burst, nowNanos)
		case bytes > s.size:
			s.raiseNanos = nowNanos // the search has ended too early
		}
		return true
	}
	return false
}

package path

import "slices"

// passed takes in that a size passes.
func (s *Search) passed(bytes int, burst uint64, nowNanos int64) {
	s.silent = 0
	if burst == s.burst {
		s.best = max(s.best, bytes)
	}
	if s.planned == 0 {
		s.nextNanos = min(s.nextNanos, s.sentNanos+s.wait())
		if burst == s.burst && bytes == s.cfg.FloorBytes {
			// It was sent last: what the path carries is here, or about to be.
			s.nextNanos = min(s.nextNanos, nowNanos+max(s.rtt()/8, minProbeNanos))
		}
	}
	if bytes <= s.low {
		return
	}
	s.low = bytes
	for len(s.missed) > 0 && s.missed[0].bytes <= bytes {
		s.missed = s.missed[1:]
	}
	s.size = max(s.size, bytes)
	if !s.settle(nowNanos) && s.planned == 0 && !s.waiting() {
		s.nextNanos = nowNanos
	}
}

// waiting reports whether probes of this burst that are of use may still be answered.
func (s *Search) waiting() bool {
	for i := range s.inFlight {
		if p := &s.inFlight[i]; p.burst == s.burst && p.bytes > s.low {
			return true
		}
	}
	return false
}

// endBurst counts what was lost of a burst.
func (s *Search) endBurst(nowNanos int64) {
	if s.best == 0 && s.bursts > 0 {
		s.silent++
	}
	for i := range s.inFlight {
		p := &s.inFlight[i]
		if s.best > 0 && p.burst == s.burst && p.bytes > s.low {
			s.miss(p.bytes, 1)
		}
	}
	s.settle(nowNanos)
}

// miss counts lost probes of a size.
func (s *Search) miss(bytes, misses int) {
	at, found := slices.BinarySearchFunc(s.missed, bytes, func(t tested, bytes int) int { return t.bytes - bytes })
	if found {
		s.missed[at].misses += misses
		return
	}
	// missed may have moved on in its array, and must not outgrow it: the longest are of least use.
	n := copy(s.missedA[:], s.missed)
	s.missed = s.missedA[:n]
	if n == maxTested {
		if at == n {
			return
		}
		s.missed = s.missed[:n-1]
	}
	s.missed = slices.Insert(s.missed, at, tested{bytes, misses})
}

// tooLong returns the shortest size that is known not to pass, or 0.
func (s *Search) tooLong() int {
	for _, t := range s.missed {
		if t.misses >= maxMisses {
			return t.bytes
		}
	}
	return 0
}

// settle draws the conclusions and reports whether the search has ended.
func (s *Search) settle(nowNanos int64) bool {
	tooLong := s.tooLong()
	if tooLong > 0 && tooLong <= s.size {
		s.size, s.ended, s.raises = s.low, false, 0 // a black hole, or a base that was too long
	}
	if s.low < s.top && (tooLong == 0 || tooLong > s.low+1) {
		return false
	}
	confirmed := s.phase == searchConfirm && s.ended
	s.phase, s.planned = searchIdle, 0
	s.size, s.ended = s.low, true
	s.watchNanos = Never
	switch {
	case confirmed: // nothing is new
	case s.size < s.cfg.CeilingBytes:
		s.raiseNanos = nowNanos + s.raiseAfter()
	default:
		s.raiseNanos = Never
	}
	return true
}

// raiseAfter returns how long after a search the next one upwards is due.
func (s *Search) raiseAfter() int64 {
	switch s.raises {
	case 0:
		return earlyRaiseNanos
	case 1:
		return secondRaiseNanos
	}
	return raiseNanos
}

// Refused is told that the interface did not take a packet of so many bytes (EMSGSIZE), a probe or not. The size is lower
// at once where it must be.
func (s *Search) Refused(bytes int, nowNanos int64) {
	if bytes <= s.cfg.FloorBytes || bytes > s.cfg.CeilingBytes {
		return
	}
	s.limit = min(s.limit, bytes-1)
	if s.size >= bytes || s.low >= bytes {
		s.size = s.cfg.FloorBytes
		for _, common := range commonBytes {
			if common < bytes {
				s.size = max(s.size, common)
				break
			}
		}
		s.raises = 0
		s.begin(searchFirst, s.cfg.FloorBytes, s.limit, nowNanos)
		return
	}
	if s.phase == searchIdle || bytes > s.top {
		return
	}
	s.top = s.limit
	for i := range s.inFlight {
		if s.inFlight[i].bytes > s.top {
			s.inFlight[i] = probe{}
		}
	}
	for len(s.missed) > 0 && s.missed[len(s.missed)-1].bytes > s.top {
		s.missed = s.missed[:len(s.missed)-1]
	}
	left := s.plan[:0]
	for _, planned := range s.plan[:s.planned] {
		if planned <= s.top {
			left = append(left, planned)
		}
	}
	s.planned = len(left)
	if !s.settle(nowNanos) && s.planned == 0 && !s.waiting() {
		s.nextNanos = nowNanos
	}
}

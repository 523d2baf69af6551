package path

import "slices"

// planBurst chooses the sizes of the next burst. Probe sends them from the end of plan.
func (s *Search) planBurst() {
	s.burst++
	s.bursts++
	s.best = 0
	s.planned = 0
	s.addToPlan(s.cfg.FloorBytes) // last
	switch {
	case s.silent > 0, s.phase == searchConfirm && s.bursts == 1:
		// Nothing answers, or nothing speaks against the size: do not send more than it takes to know.
		if s.size > s.low {
			s.addToPlan(s.size)
		}
	case len(s.missed) == 0:
		s.addToPlan(s.size)
		s.addToPlan(s.top)
		s.planCommon(s.low, s.top, maxBurst)
		s.planEvenly(s.top)
	default:
		s.planBetween()
	}
	slices.Sort(s.plan[:s.planned])
}

// planBetween plans sizes between the longest that passed and the shortest that was lost, and the latter once more: it
// may have been lost by chance. So may the longest of all.
func (s *Search) planBetween() {
	lost := s.missed[0]
	if lost.misses < maxMisses {
		s.addToPlan(lost.bytes)
	}
	if top := s.missed[len(s.missed)-1]; top.misses < maxMisses && s.tooLong() == 0 {
		s.addToPlan(top.bytes)
	}
	if s.phase != searchRaise && s.size < lost.bytes && s.size > s.low {
		s.addToPlan(s.size)
	}
	s.planCommon(s.low, lost.bytes, refineBurst)
	s.planEvenly(lost.bytes)
}

// planEvenly fills a burst with sizes between the longest that passed and another one.
func (s *Search) planEvenly(below int) {
	gap, room := below-s.low, refineBurst+1-s.planned
	for k := 1; k <= room; k++ {
		s.addToPlan(s.low + gap*k/(room+1))
	}
}

// planCommon plans the sizes of common links between two sizes, as long as no more than most are planned.
func (s *Search) planCommon(above, below, most int) {
	for _, bytes := range commonBytes {
		if bytes > above && bytes < below && s.planned < most {
			s.addToPlan(bytes)
		}
	}
}

// addToPlan plans a size that is not planned yet.
func (s *Search) addToPlan(bytes int) {
	if bytes > s.top && bytes != s.cfg.FloorBytes || bytes <= s.low && bytes != s.cfg.FloorBytes ||
		s.planned == maxBurst || slices.Contains(s.plan[:s.planned], bytes) {
		return
	}
	s.plan[s.planned] = bytes
	s.planned++
}

package bench

import "math"

// The search for the highest clean rate.
const (
	firstRate   = 20e3 // packets per second
	climbFactor = 2
	lowestRate  = 100
	highestRate = 8e6
	// bisections narrow the last step of the climb down to 2^(1/16), 4 %.
	bisections = 4
	// tries is how often a rate may fail: a single burst of loss says more of the machine than of the path.
	tries = 2
	// keepsPace is the part of the rate asked for that a sender has to reach.
	keepsPace = 0.95
)

// attempt is what came of sending at a rate.
type attempt struct {
	sent  float64 // packets per second, by the sender's own clock
	clean bool    // less than 1 % was lost
}

// cleanRate finds the highest rate, in packets per second, at which a path is clean: it climbs in large steps until one
// fails and then halves the interval. If the sender cannot keep pace, what it reached is the result: the path might do
// better. 0 means that not even the lowest rate is clean.
func cleanRate(try func(rate float64) (attempt, error)) (float64, error) {
	s := search{try: try}
	rate := float64(firstRate)
	for ; s.failed == 0 && rate <= highestRate; rate *= climbFactor {
		done, err := s.test(rate)
		if done || err != nil {
			return s.best, err
		}
	}
	for rate = firstRate / climbFactor; s.clean == 0 && rate >= lowestRate; rate /= climbFactor {
		done, err := s.test(rate)
		if done || err != nil {
			return s.best, err
		}
	}
	if s.clean == 0 || s.failed == 0 {
		return s.best, nil
	}
	for range bisections {
		done, err := s.test(math.Sqrt(s.clean * s.failed))
		if done || err != nil {
			return s.best, err
		}
	}
	return s.best, nil
}

// search is the state of cleanRate.
type search struct {
	try    func(rate float64) (attempt, error)
	clean  float64 // highest rate that was clean
	failed float64 // lowest rate that was not; 0 is none
	best   float64 // highest rate really sent and clean
}

// test tries a rate. It is done when the sender was too slow for it.
func (s *search) test(rate float64) (done bool, err error) {
	for range tries {
		a, err := s.try(rate)
		if err != nil {
			return true, err
		}
		if !a.clean {
			continue
		}
		s.best = max(s.best, a.sent)
		s.clean = rate
		return a.sent < keepsPace*rate, nil
	}
	s.failed = rate
	return false, nil
}

package bench

import "math"

// The search for the highest clean rate.
const (
	firstRate   = 20e3 // packets per second
	climbFactor = 2
	lowestRate  = 100
	highestRate = 8e6
	// tries is how often a rate may fail, or the sender: once says more of the machine than of the path.
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
// fails and then halves the interval so many times. A rate that the sender does not reach fails too, but what it did reach
// counts. 0 means that not even the lowest rate is clean.
func cleanRate(bisections int, try func(rate float64) (attempt, error)) (float64, error) {
	s := search{try: try}
	rate := float64(firstRate)
	for ; s.failed == 0 && rate <= highestRate; rate *= climbFactor {
		if err := s.test(rate); err != nil {
			return 0, err
		}
	}
	for rate = firstRate / climbFactor; s.clean == 0 && rate >= lowestRate; rate /= climbFactor {
		if err := s.test(rate); err != nil {
			return 0, err
		}
	}
	if s.clean == 0 || s.failed == 0 {
		return s.clean, nil
	}
	for range bisections {
		if err := s.test(math.Sqrt(s.clean * s.failed)); err != nil {
			return 0, err
		}
	}
	return s.clean, nil
}

// search is the state of cleanRate.
type search struct {
	try    func(rate float64) (attempt, error)
	clean  float64 // highest rate really sent that was clean
	failed float64 // lowest rate asked for that was not or could not be sent; 0 is none
}

// test tries a rate.
func (s *search) test(rate float64) error {
	for range tries {
		a, err := s.try(rate)
		if err != nil {
			return err
		}
		if !a.clean {
			continue
		}
		s.clean = max(s.clean, a.sent)
		if a.sent >= keepsPace*rate {
			return nil
		}
	}
	s.failed = rate
	return nil
}

package bench

import "time"

const (
	// loadHeadStart is how long a TCP stream runs alone, so that it is at speed when round trips are measured.
	loadHeadStart = 300 * time.Millisecond
	// wanParts is how many times as long as others a measurement takes whose packets are lost by chance.
	wanParts = 4

	// Of a search for the clean rate: how long one rate is tried, as a part of a measurement; roughly how many are; and
	// what each takes besides.
	attemptParts    = 2
	minAttempt      = 100 * time.Millisecond
	usualAttempts   = 13
	attemptOverhead = 300 * time.Millisecond
	// A rate is narrowed down by this many steps, to 2^(1/16), 4 %, unless attempts are so short that chance decides.
	fineSteps, coarseSteps = 4, 0
	fineAttempt            = 500 * time.Millisecond

	// setup is roughly what it takes to start and stop one contender.
	setup = 2 * time.Second
)

// plan is how long things take.
type plan struct {
	duration time.Duration // of each measurement
}

func (p plan) attempt() time.Duration { return max(minAttempt, p.duration/attemptParts) }

func (p plan) searchSteps() int {
	if p.attempt() < fineAttempt {
		return coarseSteps
	}
	return fineSteps
}

func (p plan) search() time.Duration { return usualAttempts * (p.attempt() + attemptOverhead) }

// warmUp is how long TCP is sent each way before the first measurement.
func (p plan) warmUp() time.Duration { return min(time.Second, p.duration/2) }

// row is roughly how long a row takes, for one contender.
func (p plan) row(r Row) time.Duration {
	switch r.Name {
	case rowLarge, rowSmall:
		return p.search()
	case rowLoaded:
		return p.duration + 2*loadHeadStart
	case rowMemory:
		return 0
	case rowWAN:
		return wanParts * time.Duration(len(r.loads)) * p.duration
	}
	return time.Duration(max(1, len(r.loads))) * p.duration
}

// pass is roughly how long all rows take, for one contender.
func (p plan) pass(rows []Row) time.Duration {
	var sum time.Duration
	for _, at := range places() {
		here := rowsAt(rows, at)
		for _, r := range here {
			sum += p.row(r)
		}
		if len(here) > 0 {
			sum += setup + 2*p.warmUp()
		}
	}
	return sum
}

// rowsAt returns those that are measured on a network.
func rowsAt(rows []Row, at place) []Row {
	var here []Row
	for _, r := range rows {
		if r.place == at {
			here = append(here, r)
		}
	}
	return here
}

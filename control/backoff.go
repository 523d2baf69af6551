package control

import (
	"math/rand/v2"
	"time"
)

// Bounds of the pause before a retry.
const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 4 * time.Second
)

// backoff spaces retries: the first comes within firstRetry, each further pause is drawn from twice the range, up
// to lastRetry. Drawing from the upper half keeps a herd of members apart and still retries soon.
type backoff struct {
	rng      *rand.Rand
	attempts int
}

func newBackoff(seed uint64) *backoff {
	return &backoff{rng: rand.New(rand.NewPCG(seed, seed))}
}

// next returns how long to wait before the next attempt.
func (b *backoff) next() time.Duration {
	limit := min(firstRetry<<min(b.attempts, 16), lastRetry)
	b.attempts++
	return limit/2 + time.Duration(b.rng.Int64N(int64(limit/2)))
}

// reset starts over after a success.
func (b *backoff) reset() { b.attempts = 0 }

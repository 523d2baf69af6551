package control

import (
	"context"
	"time"
)

// raceStagger is the head start of each candidate over the next (RFC 8305 section 5 recommends 250 ms).
const raceStagger = 250 * time.Millisecond

// race starts one attempt per candidate, each a stagger after the one before or as soon as that has failed, and
// returns the first success. It cancels the others, waits for them, and hands successes that came too late to discard. With
// no success, also because ctx ended, the error names those of all attempts.
func race[C, R any](
	ctx context.Context, candidates []C, attempt func(context.Context, C) (R, error), discard func(R),
) (R, error) {
	type outcome struct {
		result R
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outcomes := make(chan outcome, len(candidates))
	var none R
	var failed failures
	started, ended := 0, 0
	start := func() {
		c := candidates[started]
		started++
		go func() {
			var r R
			err := recovered(func() (err error) {
				r, err = attempt(ctx, c)
				return err
			})
			outcomes <- outcome{r, err}
		}()
	}
	drain := func() {
		cancel()
		for ; ended < started; ended++ {
			o := <-outcomes
			if o.err == nil {
				discard(o.result)
				continue
			}
			failed = append(failed, o.err)
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ended < len(candidates) {
		select {
		case <-timer.C:
			if started < len(candidates) {
				start()
				timer.Reset(raceStagger)
			}
		case o := <-outcomes:
			ended++
			if o.err == nil {
				drain()
				return o.result, nil
			}
			failed = append(failed, o.err)
			timer.Reset(0)
		case <-ctx.Done():
			cause := context.Cause(ctx)
			drain()
			if len(failed) == 0 {
				failed = append(failed, cause)
			}
			return none, failed
		}
	}
	return none, failed
}

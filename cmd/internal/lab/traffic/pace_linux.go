package traffic

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	sendBatch = 64
	// paceQuantum is how much of the schedule goes out in one batch at most, unless the sender was late.
	paceQuantum = 50 * time.Microsecond
	// maxLate is how much a sender that was kept from running makes up for; what is beyond it moves the
	// schedule. A longer burst would measure the depth of queues, not the path.
	maxLate = 2 * time.Millisecond
	// maxSleep bounds how long a sender does not look at its context.
	maxSleep = 20 * time.Millisecond
)

// pacer calls send so that packets leave at an even pace.
type pacer struct {
	packets   int     // in all
	perSecond float64 // 0 is as fast as possible
	// send sends up to that many packets, in order, and returns how many it is rid of.
	send func(packets int) (int, error)
}

// run sends all packets. It needs a thread for itself as long as it
// runs, since timers of package time are too coarse; it takes one.
func (p pacer) run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread's timer slack is ours
		err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		if err == nil {
			err = p.loop(ctx)
		}
		done <- err
	}()
	return <-done
}

func (p pacer) loop(ctx context.Context) error {
	start := time.Now()
	sent := 0
	for sent < p.packets {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		due := p.packets - sent
		if p.perSecond > 0 {
			elapsed := time.Since(start)
			if late := elapsed - p.at(sent) - maxLate; late > 0 {
				start = start.Add(late)
				elapsed -= late
			}
			due = min(due, int(elapsed.Seconds()*p.perSecond)+1-sent)
		}
		if due <= 0 {
			if err := sleep(p.at(sent+p.quantum()-1) - time.Since(start)); err != nil {
				return err
			}
			continue
		}
		n, err := p.send(min(due, sendBatch))
		sent += n
		if err != nil {
			return err
		}
	}
	return nil
}

// at returns when a packet is due, from the start.
func (p pacer) at(packet int) time.Duration {
	if p.perSecond == 0 {
		return 0
	}
	return time.Duration(float64(packet) / p.perSecond * float64(time.Second))
}

// quantum returns how many packets to wait for.
func (p pacer) quantum() int {
	return min(max(1, int(p.perSecond*paceQuantum.Seconds())), sendBatch)
}

// sleep waits with the precision of the clock, at most maxSleep.
func sleep(d time.Duration) error {
	t := unix.NsecToTimespec(int64(min(max(0, d), maxSleep)))
	if err := unix.Nanosleep(&t, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("sleep: %w", err)
	}
	return nil
}

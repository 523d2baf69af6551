package lab

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// sharpTimers lets waits of the current thread end when they are due rather than up to 50 us later, the
// default (prctl(2), PR_SET_TIMERSLACK).
func sharpTimers() error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set the timer slack: %w", err)
	}
	return nil
}

// pollFor waits until one of the descriptors is ready, or, if limited, for a time at the most.
func pollFor(fds []unix.PollFd, wait time.Duration, limited bool) error {
	var timeout *unix.Timespec
	if limited {
		t := unix.NsecToTimespec(int64(max(0, wait)))
		timeout = &t
	}
	for i := range fds {
		fds[i].Revents = 0
	}
	_, err := unix.Ppoll(fds, timeout, nil)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}

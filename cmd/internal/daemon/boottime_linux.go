package daemon

import (
	"golang.org/x/sys/unix"
)

// bootNanos is a clock that goes on while the host sleeps, so that the keys of a lane grow old meanwhile.
func bootNanos() func() int64 {
	return func() int64 {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
			panic("daemon: " + err.Error()) // Linux has had it since 2.6.39
		}
		return t.Nano()
	}
}

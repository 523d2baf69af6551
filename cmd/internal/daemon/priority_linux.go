package daemon

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// setNice sets the scheduling priority of all threads of the process; those it starts later take it over from the ones
// that start them.
func setNice(nice int) error {
	known := make(map[string]bool)
	for {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list our threads: %w", err)
		}
		fresh := false
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil || known[t.Name()] {
				continue
			}
			known[t.Name()], fresh = true, true
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, nice); err != nil && err != unix.ESRCH {
				return fmt.Errorf("set priority %d: %w", nice, err)
			}
		}
		if !fresh { // no thread has been started by one that was not set yet
			return nil
		}
	}
}

package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// setNice sets the scheduling priority of all threads of the process; those it starts later take it over from the ones
// that start them. Where the kernel shares processors out by session (autogroups, sched(7)) it counts within the session
// only, so a session of our own gets it, too.
func setNice(nice int) error {
	if err := setThreadsNice(nice); err != nil {
		return err
	}
	session, err := unix.Getsid(0)
	if err != nil {
		return fmt.Errorf("find our session: %w", err)
	}
	if session != os.Getpid() {
		return nil
	}
	return setSessionNice(nice)
}

func setThreadsNice(nice int) error {
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

// setSessionNice sets the priority of our session. Kernels without autogroups have nothing to set.
func setSessionNice(nice int) error {
	f, err := os.OpenFile("/proc/self/autogroup", os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = f.WriteString(strconv.Itoa(nice))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("set priority %d of the session: %w", nice, err)
	}
	return nil
}

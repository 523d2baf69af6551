package udp

import (
	"flag"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// keepOrder lets all tests run on one processor. A link between namespaces keeps the order of what one processor sends,
// and a thread that moves to another one in between makes datagrams overtake each other. Benchmarks want both.
func keepOrder() error {
	if f := flag.Lookup("test.bench"); f != nil && f.Value.String() != "" {
		return nil
	}
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return err
	}
	for cpu := range len(allowed) * 64 {
		if allowed.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	// Threads that start later take it over from those that start them.
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &one); err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

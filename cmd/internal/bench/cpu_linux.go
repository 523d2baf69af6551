package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
)

// cpuTime is how long processors have worked.
type cpuTime struct {
	daemons time.Duration // for the contender's
	all     time.Duration // for those, this process (both ends of the traffic) and the kernel's network threads
}

// cpu reads the CPU time of this site so far. Where the kernel's threads cannot be seen, as in some containers, they are
// not in it.
func (s *site) cpu() (sum cpuTime, err error) {
	for _, pid := range s.processes {
		t, err := lab.ProcessCPU(pid)
		if err != nil {
			return sum, err
		}
		sum.daemons += t
	}
	kernel, err := softIRQThreads()
	if err != nil {
		return sum, err
	}
	sum.all = sum.daemons
	for _, pid := range append(kernel, os.Getpid()) {
		t, err := lab.ProcessCPU(pid)
		if err != nil {
			return sum, err
		}
		sum.all += t
	}
	return sum, nil
}

// softIRQThreads finds the kernel's threads that do what interrupts leave over: ksoftirqd/0 and so on.
func softIRQThreads() ([]int, error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, path := range names {
		name, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(name), "ksoftirqd/") {
			continue // processes come and go
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, fmt.Errorf("look for the kernel's threads: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

package daemon

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSetNice: every thread gets it, those too that are started afterwards.
func TestSetNice(t *testing.T) {
	before, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	const none = 20 // the system call returns 20 - nice
	nice := none - before + 1
	if err := setNice(nice); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := setNice(none - before); err != nil && !errors.Is(err, unix.EACCES) {
			t.Error(err)
		}
	})
	var started, checked sync.WaitGroup
	checked.Add(1)
	for range 8 {
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			started.Done()
			checked.Wait()
		}()
	}
	started.Wait()
	defer checked.Done()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unix.Getpriority(unix.PRIO_PROCESS, id); err == nil && none-got != nice {
			t.Errorf("thread %d has %d, want %d", id, none-got, nice)
		}
	}
}

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// niceBase is what the system call adds: it returns 20 - nice, which is never negative.
const niceBase = 20

// All threads of a running daemon have the scheduling priority that its configuration asks for.
func TestDaemonsHaveTheirPriority(t *testing.T) {
	t.Parallel()
	const usual = -10
	g, l := twoMachines(t)
	gateway := gatewayUp(g)
	config := filepath.Join(l.dir, "nice.toml")
	if err := os.WriteFile(config, []byte("[node]\nnice = 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	member := l.up("laptop", "--config", config, "--name", "laptop", gateway.invite()).connected()
	mustHaveNice(t, member, 5)
	err := raise(usual)
	switch {
	case err == nil:
		mustHaveNice(t, gateway, usual)
	case errors.Is(err, unix.EACCES): // as root of a user namespace
		gateway.await("priority left as it is")
	default:
		t.Fatal(err)
	}
}

// A daemon in the background leads a session, which gets the priority where processors are shared out by session.
func TestSessionsHaveTheirPriority(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/autogroup"); errors.Is(err, os.ErrNotExist) {
		t.Skip("this kernel has no autogroups")
	}
	g, _ := twoMachines(t)
	stopDetached(g, "gateway")
	out := g.must("up", "--detach", "--state", g.state("gateway"), "--network", testNetwork, "--port-mapping", "off",
		"--nice", "5")
	_, after, _ := strings.Cut(out, "(pid ")
	pid, _, _ := strings.Cut(after, ")")
	group, err := os.ReadFile(filepath.Join("/proc", pid, "autogroup"))
	if err != nil || !strings.HasSuffix(string(group), " nice 5\n") {
		t.Errorf("process %q has %q, %v", pid, group, err)
	}
	g.must("down", "--state", g.state("gateway"))
}

// mustHaveNice checks the nice value of each of a daemon's threads.
func mustHaveNice(t *testing.T, d *daemon, want int) {
	t.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		got, err := unix.Getpriority(unix.PRIO_PROCESS, id)
		if errors.Is(err, unix.ESRCH) { // it has ended
			continue
		}
		if seen++; err != nil || niceBase-got != want {
			t.Errorf("%s: thread %d has nice %d, want %d (%v)", d, id, niceBase-got, want, err)
		}
	}
	if seen == 0 {
		t.Errorf("%s has no threads", d)
	}
}

// raise tries a nice value on a thread that ends with that.
func raise(nice int) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- unix.Setpriority(unix.PRIO_PROCESS, 0, nice)
	}()
	return <-done
}

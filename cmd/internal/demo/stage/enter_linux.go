package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
)

const (
	// marker is the environment variable by which the program inside knows. Its value is the mount namespace
	// outside, so that a variable which somebody else has set by chance is not believed.
	marker = "AETHERD_STAGE_LEFT"
	// runDir is where the private memory file system is mounted.
	runDir = "/run"
	// stopLimit is how long the program inside may take to clean up.
	stopLimit = 15 * time.Second
)

// Self is a path that starts the running program again, even when its file has been replaced or is out of sight.
const Self = "/proc/self/exe"

// Inside reports whether this process was started by [Enter] and may call [Prepare].
func Inside() bool {
	outside := os.Getenv(marker)
	now, err := mountNamespace()
	return outside != "" && err == nil && outside != now
}

func mountNamespace() (string, error) { return os.Readlink("/proc/self/ns/mnt") }

// Enter starts this program again, with the same arguments, in a corner of its own, and waits for it. The verb names
// the command in advice. A program that ends with an exit code gives an [*exec.ExitError], and has said why; anything
// else is an error for the user. When ctx ends, the program inside is asked to end.
func Enter(ctx context.Context, verb string, out, errOut io.Writer) error {
	facts := Look()
	if advice := facts.Advice(verb); advice != "" {
		return errors.New(advice)
	}
	outside, err := mountNamespace()
	if err != nil {
		return fmt.Errorf("find the mount namespace: %w", err)
	}
	c := exec.CommandContext(ctx, Self, os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Env = append(os.Environ(), marker+"="+outside)
	c.Stdout, c.Stderr = out, errOut
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = stopLimit
	facts.isolate(c)
	return run(c, func(err error) error { return facts.Blame(verb, err) })
}

// isolate makes a process start in a corner of its own, and end when the thread that started it does.
func (f Facts) isolate(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	if !f.Privileged {
		lab.AsNamespaceRoot(c)
	}
}

// Try makes a corner and runs a program in it that does nothing, to find out whether the system lets it. It serves
// those who would rather not begin at all, such as tests.
func Try(verb, program string, args ...string) error {
	facts := Look()
	if advice := facts.Advice(verb); advice != "" {
		return errors.New(advice)
	}
	c := exec.Command(program, args...)
	facts.isolate(c)
	return run(c, func(err error) error { return facts.Blame(verb, err) })
}

// run starts a process from a thread that lives as long as it: the death signal comes when the thread ends.
func run(c *exec.Cmd, blame func(error) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.Start(); err != nil {
		return blame(err)
	}
	err := c.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return exit
	}
	return err
}

// Prepare furnishes the corner that the process was started in: it covers /run with an empty file system in memory.
// Call it once, early, in a process that is [Inside].
func Prepare(verb string) error {
	if !Inside() {
		return errors.New("the process is not in a mount namespace of its own")
	}
	if err := os.Unsetenv(marker); err != nil { // the children are none of this
		return fmt.Errorf("prepare the stage: %w", err)
	}
	for _, dir := range runDirs() {
		err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755,size=256m")
		if err != nil {
			return Look().Blame(verb, fmt.Errorf("mount a private %s: %w", dir, err))
		}
	}
	return nil
}

// runDirs is /run, and /var/run where that is a directory of its own.
func runDirs() []string {
	dirs := []string{runDir}
	if other, err := filepath.EvalSymlinks("/var/run"); err == nil && other != runDir {
		dirs = append(dirs, other)
	}
	return dirs
}

// Look finds the facts of this machine.
func Look() Facts {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return Facts{
		Privileged:        err == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0,
		Tun:               tunState(),
		MaxUserNamespaces: number("/proc/sys/user/max_user_namespaces", -1),
		UnprivilegedClone: number("/proc/sys/kernel/unprivileged_userns_clone", 1) != 0,
		AppArmorRestricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 0) != 0,
	}
}

func tunState() TunState {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	switch {
	case err == nil:
		_ = f.Close() // nothing was done with it
		return TunUsable
	case errors.Is(err, os.ErrPermission):
		return TunForbidden
	case errors.Is(err, os.ErrNotExist):
		return TunMissing
	}
	return TunNoDriver
}

// number reads a kernel parameter, or takes what its absence means.
func number(path string, absent int) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return absent
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return absent
	}
	return n
}

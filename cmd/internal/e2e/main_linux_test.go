package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
)

// Environment of the second start of the test binary, inside its own namespaces.
const (
	binaryVariable = "AETHER_E2E_BINARY"      // path of the aetherd to test
	skipVariable   = "AETHER_E2E_CANNOT"      // why there are no namespaces
	withoutAdmin   = "AETHER_E2E_NO_NETADMIN" // become aetherd without CAP_NET_ADMIN
	withoutTUN     = "AETHER_E2E_NO_TUN"      // become aetherd on a machine without TUN driver
)

// soakCycles is how many kill cycles the long form makes, 0 in the short form.
func soakCycles(t *testing.T) int {
	t.Helper()
	text := os.Getenv("AETHER_SOAK")
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("AETHER_SOAK=%s: want a number of cycles, such as 200", text)
	}
	return n
}

func TestMain(m *testing.M) {
	for variable, prepare := range map[string]func() error{withoutAdmin: dropAdmin, withoutTUN: hideTUN} {
		if os.Getenv(variable) != "" {
			fmt.Fprintln(os.Stderr, "e2e:", become(prepare))
			os.Exit(1)
		}
	}
	run := outside
	if os.Getenv(binaryVariable) != "" {
		run = inside
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// outside builds aetherd and starts this test again in namespaces of its own.
func outside(m *testing.M) (int, error) {
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "aether-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "aetherd")
	if err := build(binary); err != nil {
		return 1, err
	}
	if err := os.Setenv(binaryVariable, binary); err != nil {
		return 1, err
	}
	reason, err := refused()
	if err != nil {
		return 1, err
	}
	if reason != "" {
		if err := os.Setenv(skipVariable, reason); err != nil {
			return 1, err
		}
		return m.Run(), nil
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	again := exec.Command(self, os.Args[1:]...)
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	ownNamespaces(again)
	err = again.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// build makes the program under test.
func build(binary string, flags ...string) error {
	args := append([]string{"build", "-o", binary}, flags...)
	if raceDetector {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "../../aetherd")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build aetherd: %w\n%s", err, out)
	}
	return nil
}

// ownNamespaces makes a command start in a network and mount namespace of its own, as root of a user
// namespace if we are not root. It dies with us.
func ownNamespaces(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() != 0 {
		lab.AsNamespaceRoot(c)
	}
	c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNS | syscall.CLONE_NEWNET
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL
}

// refused returns why the kernel does not let us have the namespaces or a TUN device, and "" when it does. It
// asks for nothing else, so no other failure passes for this one.
func refused() (string, error) {
	c := exec.Command("/proc/self/exe", "-test.run=^$")
	c.Env = append(os.Environ(), skipVariable+"=only trying")
	ownNamespaces(c)
	if err := c.Start(); err != nil {
		return fmt.Sprintf("no namespaces of our own: %v (run as root, or allow user namespaces)", err), nil
	}
	if err := c.Wait(); err != nil {
		return "", fmt.Errorf("try namespaces of our own: %w", err)
	}
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return fmt.Sprintf("no TUN devices: %v (load the module tun, or pass the device to the container)", err), nil
	}
	return "", tun.Close()
}

// inside runs the tests.
func inside(m *testing.M) (int, error) {
	flag.Parse()
	if os.Getenv(skipVariable) != "" {
		return m.Run(), nil
	}
	// Daemons share /run/aetherd; the machine's own is none of our business.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 1, fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return 1, fmt.Errorf("mount an empty /run: %w", err)
	}
	if !given("test.parallel") {
		// Most of a test is waiting for the other end.
		if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
			return 1, err
		}
	}
	code := m.Run()
	if code != 0 {
		return code, nil
	}
	if err := goleak.Find(); err != nil {
		return 1, err
	}
	return 0, nothingHeld()
}

func given(name string) bool {
	found := false
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// nothingHeld checks that no holder file of a kernel parameter is left by any test.
func nothingHeld() error {
	return filepath.WalkDir("/run/aetherd", func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && (d.IsDir() || d.Name() == "lock"):
			return nil
		case err != nil:
			return err
		}
		return fmt.Errorf("%s was left behind", path)
	})
}

// become replaces this process by aetherd, in circumstances that prepare makes.
func become(prepare func() error) error {
	runtime.LockOSThread()
	if err := prepare(); err != nil {
		return err
	}
	binary := os.Getenv(binaryVariable)
	return unix.Exec(binary, append([]string{binary}, os.Args[1:]...), os.Environ())
}

// dropAdmin gives up the permission to administer the network: root regains on exec only what is left in the
// bounding set.
func dropAdmin() error {
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_ADMIN, 0, 0, 0); err != nil {
		return fmt.Errorf("drop CAP_NET_ADMIN: %w", err)
	}
	return nil
}

// hideTUN covers the directory of the driver's device, for this process alone.
func hideTUN() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("empty", "/dev/net", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("hide /dev/net: %w", err)
	}
	return nil
}

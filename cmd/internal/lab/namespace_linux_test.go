package lab_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/labtest"
)

// inode names the network namespace of the current thread or of a process.
func inode(t *testing.T, task string) string {
	t.Helper()
	link, err := os.Readlink(filepath.Join("/proc", task, "ns/net"))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestDoRunsInsideAndNothingElseDoes(t *testing.T) {
	n := labtest.Namespace(t, "box")
	outside := inode(t, "self")
	var first, second string
	for _, where := range []*string{&first, &second} {
		if err := n.Do(func() error { *where = inode(t, "thread-self"); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if first != second || first == outside {
		t.Errorf("ran in %s and %s, outside is %s", first, second, outside)
	}
	// Calls that take a thread each, at the same time.
	var calls errgroup.Group
	for range 8 {
		calls.Go(func() error {
			return n.Do(func() error { return unix.Nanosleep(&unix.Timespec{Nsec: 5e6}, nil) })
		})
	}
	if err := calls.Wait(); err != nil && !errors.Is(err, unix.EINTR) {
		t.Fatal(err)
	}
	// Their threads go soon after them; the one that stays belongs to the namespace's own goroutine.
	const patience = 20 * time.Second
	for began := time.Now(); threadsIn(t, first) != 1; {
		if time.Since(began) > patience {
			t.Fatalf("%d threads are inside after the calls, want 1", threadsIn(t, first))
		}
	}
	if now := inode(t, "self"); now != outside {
		t.Errorf("the process moved from %s to %s", outside, now)
	}
}

// threadsIn counts the threads of this process in a namespace.
func threadsIn(t *testing.T, namespace string) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	check(t, err)
	threads := 0
	for _, task := range tasks {
		link, err := os.Readlink(filepath.Join("/proc/self/task", task.Name(), "ns/net"))
		if err == nil && link == namespace { // a thread may go meanwhile
			threads++
		}
	}
	return threads
}

func TestDoReturnsTheErrorAsItIs(t *testing.T) {
	n := labtest.Namespace(t, "box")
	want := errors.New("as it is")
	if err := n.Do(func() error { return want }); !errors.Is(err, want) || err.Error() != want.Error() {
		t.Errorf("got %v", err)
	}
	if err := n.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("a function that never returned has no error")
	}
	inner := n.Do(func() error {
		outer := inode(t, "thread-self")
		return n.Do(func() error {
			if inode(t, "thread-self") != outer {
				return errors.New("nested call ran elsewhere")
			}
			return nil
		})
	})
	if inner != nil {
		t.Error(inner)
	}
}

func TestNamespaceIsFurnished(t *testing.T) {
	n := labtest.Namespace(t, "box")
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := n.Listen(address)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := n.Dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatalf("loopback is not up: %v", err)
		}
		if got := congestionOf(t, conn); got != "cubic" {
			t.Errorf("%s: congestion control %q, want cubic", address, got)
		}
		if err := errors.Join(conn.Close(), l.Close()); err != nil {
			t.Error(err)
		}
	}
	udp, err := n.ListenUDP("[::]:443")
	if err != nil {
		t.Fatal(err)
	}
	if err := udp.Close(); err != nil {
		t.Error(err)
	}
	if err := n.Sysctl("net.ipv4.ip_forward", "1"); err != nil {
		t.Error(err)
	}
	if got, err := n.ReadSysctl("net.ipv4.ip_forward"); err != nil || got != "1" {
		t.Errorf("sysctl reads %q, %v", got, err)
	}
	if err := n.Sysctl("net.ipv4.no_such_key", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unknown sysctl: %v", err)
	}
}

func congestionOf(t *testing.T, conn net.Conn) string {
	t.Helper()
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		t.Fatalf("a TCP connection is a %T", conn)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var failed error
	err = raw.Control(func(fd uintptr) {
		name, failed = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCloseEndsEverything(t *testing.T) {
	n, err := lab.NewNamespace("short-lived")
	if err != nil {
		labtest.Namespace(t, "skipped for the same reason")
		t.Fatal(err)
	}
	sleep := n.Command(t.Context(), "sleep", "30")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	var inside string
	if err := n.Do(func() error { inside = inode(t, "thread-self"); return nil }); err != nil {
		t.Fatal(err)
	}
	if got := inode(t, strconv.Itoa(sleep.Process.Pid)); got != inside {
		t.Errorf("the process runs in %s, not in %s", got, inside)
	}
	if err := errors.Join(n.Close(), n.Close()); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := sleep.Wait(); !errors.As(err, &exit) || !strings.Contains(exit.String(), "killed") {
		t.Errorf("the process in the namespace ended with %v, want it killed", err)
	}
	if err := n.Do(func() error { return nil }); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("Do after Close: %v", err)
	}
	if err := n.Command(t.Context(), "true").Run(); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	if err := lab.Veth(n.Interface("a"), n.Interface("b"), 1500); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("Veth after Close: %v", err)
	}
}

func TestCommandOutput(t *testing.T) {
	n := labtest.Namespace(t, "box")
	out, err := n.Command(t.Context(), "sh", "-c", "echo out; echo err >&2; exit 3").Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 ||
		string(out) != "out\n" || string(exit.Stderr) != "err\n" {
		t.Errorf("Output returned %q, %v", out, err)
	}
	out, err = n.Command(t.Context(), "sh", "-c", "echo out; echo err >&2").CombinedOutput()
	if string(out) != "out\nerr\n" || err != nil {
		t.Errorf("CombinedOutput returned %q, %v", out, err)
	}
}

// The lab must work for a user without privileges, as root of a user namespace.
func TestUserNamespace(t *testing.T) {
	const inside = "LAB_TEST_IN_USER_NAMESPACE"
	if os.Getenv(inside) != "" {
		a, b := labtest.Namespace(t, "a"), labtest.Namespace(t, "b")
		labtest.Veth(t, a.Interface("v0"), b.Interface("v0"), 1500)
		labtest.Emulate(t, a.Interface("e0"), b.Interface("e0"), lab.EmulatorConfig{})
		return
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestUserNamespace$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	lab.AsNamespaceRoot(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil && userNamespacesRefused(t) {
		t.Skipf("this system lets this user have no user namespace (%v)", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// userNamespacesRefused asks the kernel for a user namespace with nothing in it.
func userNamespacesRefused(t *testing.T) bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	return cmd.Run() != nil
}

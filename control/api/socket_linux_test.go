package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSocketPath(t *testing.T) {
	long := "/" + strings.Repeat("d", maxSocketPath)
	for state, want := range map[string]string{
		DefaultState:       "/run/aetherd/aetherd.sock",
		DefaultState + "/": "/run/aetherd/aetherd.sock",
		"/tmp/x":           "/tmp/x/aetherd.sock",
		"/tmp/x/../y":      "/tmp/y/aetherd.sock",
	} {
		if got := SocketPath(state); got != want {
			t.Errorf("SocketPath(%q) = %q, want %q", state, got, want)
		}
	}
	fallback := SocketPath(long)
	if filepath.Dir(fallback) != RunDir || len(fallback) > maxSocketPath {
		t.Errorf("long state path: %q", fallback)
	}
	if SocketPath(long+"e") == fallback {
		t.Error("two long state paths share a socket")
	}
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got := SocketPath("state"); got != socketIn(filepath.Join(here, "state")) && filepath.Dir(got) != RunDir {
		t.Errorf("relative: %q", got)
	}
	// The longest path that is not replaced must really fit, draft included.
	exact := "/" + strings.Repeat("d", maxSocketPath-len("/")-len("/aetherd.sock"))
	if got := SocketPath(exact); len(got) != maxSocketPath {
		t.Errorf("%q has %d bytes", got, len(got))
	}
	if n := maxSocketPath + len(draftSuffix+"/s"); n >= 104 {
		t.Errorf("a draft's name of %d bytes does not fit everywhere", n)
	}
}

// TestLongStateListensInRunDir has a /run of its own, to leave the machine's alone.
func TestLongStateListensInRunDir(t *testing.T) {
	needRoot(t)
	run, state := t.TempDir(), filepath.Join(t.TempDir(), strings.Repeat("d", maxSocketPath))
	inMountNamespace(t, func() error {
		if err := unix.Mount(run, "/run", "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount /run: %w", err)
		}
		s, err := Listen(SocketPath(state), &book{}, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		c, err := net.Dial("unix", SocketPath(state))
		if err != nil {
			return errors.Join(err, s.Close())
		}
		return errors.Join(c.Close(), s.Close())
	})
	if left, err := os.ReadDir(filepath.Join(run, "aetherd")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func modeOf(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func TestSocketIsPrivate(t *testing.T) {
	want := os.ModeSocket | 0o600
	if _, err := user.LookupGroup(group); err == nil && os.Geteuid() == 0 {
		want = os.ModeSocket | 0o660 // this machine has the group
	}
	for _, umask := range []int{0, 0o022, 0o077} {
		dir := t.TempDir()
		before := syscall.Umask(umask)
		stop := serve(t, dir, &book{})
		syscall.Umask(before)
		if got := modeOf(t, socketIn(dir)); got != want {
			t.Errorf("umask %03o: mode %v, want %v", umask, got, want)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

// TestSocketOfTheGroup has an /etc/group of its own.
func TestSocketOfTheGroup(t *testing.T) {
	needRoot(t)
	const gid = 54321
	for name, c := range map[string]struct {
		groups   string
		mayChown bool
		mode     os.FileMode
		gid      uint32
	}{
		"with the group":    {fmt.Sprintf("root:x:0:\naetherd:x:%d:\n", gid), true, 0o660, gid},
		"without the group": {"root:x:0:\n", true, 0o600, 0},
		"without CAP_CHOWN": {fmt.Sprintf("root:x:0:\naetherd:x:%d:\n", gid), false, 0o600, 0},
	} {
		file := filepath.Join(t.TempDir(), "group")
		if err := os.WriteFile(file, []byte(c.groups), 0o644); err != nil {
			t.Fatal(err)
		}
		socket := socketIn(t.TempDir())
		inMountNamespace(t, func() error {
			if err := unix.Mount(file, "/etc/group", "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("mount /etc/group: %w", err)
			}
			if !c.mayChown {
				if err := dropChown(); err != nil {
					return fmt.Errorf("drop CAP_CHOWN: %w", err)
				}
			}
			l, err := listenPrivate(socket)
			if err != nil {
				return err
			}
			return l.Close()
		})
		info, err := os.Stat(socket)
		if err != nil {
			t.Fatal(err)
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok || owner.Gid != c.gid || owner.Uid != 0 || info.Mode().Perm() != c.mode {
			t.Errorf("%s: mode %v, owner %+v; want mode %v, group %d", name, info.Mode(), owner, c.mode, c.gid)
		}
	}
}

// dropChown takes CAP_CHOWN from the calling thread, as a service manager takes it from a daemon.
func dropChown() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_CHOWN
	return unix.Capset(&header, &data[0])
}

func TestStaleSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	// What a killed daemon leaves: a socket nobody listens on, or the draft of one.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketIn(dir), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := os.Mkdir(socketIn(dir)+draftSuffix, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(socketIn(dir)+draftSuffix, "s"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(dir).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("stale socket: got %v", err)
	}
	stop := serve(t, dir, &book{})
	if _, err := NewClient(dir).Status(t.Context()); err != nil {
		t.Errorf("after the new start: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestForeignFileIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(socketIn(dir), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Listen(socketIn(dir), &book{}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("got %v", err)
	}
	if content, err := os.ReadFile(socketIn(dir)); err != nil || string(content) != "precious" {
		t.Errorf("the file is now %q, %v", content, err)
	}
}

func TestCloseWithoutRun(t *testing.T) {
	dir := t.TempDir()
	s, err := Listen(socketIn(dir), &book{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestRunEndsWithItsListener: a failing listener ends Run with an error and leaves no socket.
func TestRunEndsWithItsListener(t *testing.T) {
	dir := t.TempDir()
	s, err := Listen(socketIn(dir), &book{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.listener.Close()
	if err := s.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestNotRunning(t *testing.T) {
	state := filepath.Join(t.TempDir(), "nothing")
	_, err := NewClient(state).Status(t.Context())
	if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), state) ||
		!strings.Contains(err.Error(), "aetherd up") || !strings.Contains(err.Error(), "--state") {
		t.Errorf("got %v", err)
	}
}

func TestNoPermission(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for d := dir; d != "/"; d = filepath.Dir(d) { // nobody must get as far as the socket
		if strings.HasPrefix(d, os.TempDir()+"/") {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	serve(t, dir, &book{})
	err := asNobody(func() error {
		// On this thread alone, so without the client's own goroutines.
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrUnix{Name: socketIn(dir)})
	})
	if !errors.Is(err, unix.EACCES) {
		t.Fatalf("a stranger's connect: got %v", err)
	}
	said := NewClient(dir).unreachable(&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", err)})
	for _, want := range []string{"not permitted", "group aetherd", socketIn(dir)} {
		if !strings.Contains(said.Error(), want) || errors.Is(said, ErrNotRunning) {
			t.Errorf("got %v; want %q", said, want)
		}
	}
}

// needRoot skips where the kernel would not let us do what the tests do: mount, and be somebody else. Root of a user
// namespace with no other users cannot.
func needRoot(t *testing.T) {
	t.Helper()
	var inside, outside, length uint32
	content, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(content), &inside, &outside, &length); err != nil {
		t.Fatalf("read %q: %v", content, err)
	}
	if os.Geteuid() != 0 || length <= nobody {
		t.Skip("needs root, and a range of user ids, for mounts and for another user")
	}
}

// nobody is the user id of somebody without rights.
const nobody = 65534

// inMountNamespace runs f on a thread with mounts of its own, which end with it.
func inMountNamespace(t *testing.T, f func() error) {
	t.Helper()
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		return f()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// asNobody runs f on a thread of another user without capabilities.
func asNobody(f func() error) error {
	return onThread(func() error {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			return fmt.Errorf("setresuid: %w", errno)
		}
		return f()
	})
}

// onThread runs f on an OS thread that nothing else uses, before or after.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

func socketIn(dir string) string { return filepath.Join(dir, "aetherd.sock") }

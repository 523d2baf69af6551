package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrClosed is returned by every use of a [Namespace] that has been closed.
var ErrClosed = errors.New("network namespace is closed")

// A Namespace is an anonymous network namespace: nothing in the file system names it, it exists as long
// as this process holds it. Its loopback interface is up, and IPv6 addresses are usable at once,
// without duplicate address detection. All methods may be called from several goroutines.
type Namespace struct {
	name   string
	handle *netlink.Handle
	calls  chan func() // run by the keeper thread, one at a time
	closed chan struct{}
	kept   chan struct{} // closed once the keeper thread has ended
	once   sync.Once

	mu sync.RWMutex // guards fd against Close while a thread is entering
	fd int          // open /proc/thread-self/ns/net, -1 once closed
}

// NewNamespace makes a network namespace. The name appears only in error messages. It needs
// CAP_SYS_ADMIN, in the host's or in a user namespace of one's own; without, the error matches
// [os.ErrPermission].
//
// Where the kernel allows it, cubic becomes the namespace's TCP congestion control; where cubic is a
// restricted algorithm the kernel refuses that for every namespace but the first, and only sockets made
// by [Namespace.Dial] and [Namespace.Listen] and by package lab/traffic use it.
func NewNamespace(name string) (*Namespace, error) {
	n := &Namespace{
		name:   name,
		fd:     -1,
		calls:  make(chan func()),
		closed: make(chan struct{}),
		kept:   make(chan struct{}),
	}
	ready := make(chan error, 1)
	go func() {
		defer close(n.kept)
		if err := onFreshThread(func() error { return n.keep(ready) }); err != nil {
			ready <- err
		}
	}()
	if err := <-ready; err != nil {
		<-n.kept
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	return n, nil
}

// keep makes the namespace on the current thread and then serves calls on it until Close. Children are
// started from here, so the thread must live as long as they may: the kernel ends them when it ends
// (PR_SET_PDEATHSIG).
func (n *Namespace) keep(ready chan<- error) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the new namespace: %w", err)
	}
	n.fd = fd
	if err := n.furnish(); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	ready <- nil
	for {
		select {
		case call := <-n.calls:
			call()
		case <-n.closed:
			return nil
		}
	}
}

// furnish sets up a new namespace from a thread inside it.
func (n *Namespace) furnish() error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	n.handle = handle
	if err := n.configure(); err != nil {
		handle.Close()
		return err
	}
	return nil
}

func (n *Namespace) configure() error {
	settings := []struct{ key, value string }{
		{"net.ipv6.conf.all.disable_ipv6", "0"},
		{"net.ipv6.conf.default.disable_ipv6", "0"},
		{"net.ipv6.conf.lo.disable_ipv6", "0"},
		{"net.ipv6.conf.all.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_dad", "0"},
		// An address that follows another of its subnet stays when the first one is removed.
		{"net.ipv4.conf.all.promote_secondaries", "1"},
	}
	for _, s := range settings {
		if err := writeSysctl(s.key, s.value); err != nil {
			return err
		}
	}
	err := writeSysctl("net.ipv4.tcp_congestion_control", congestionControl)
	if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	lo, err := n.handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := n.handle.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// Name returns the name given to [NewNamespace].
func (n *Namespace) Name() string { return n.name }

// Handle returns a netlink handle for this namespace; it ends with [Namespace.Close].
func (n *Namespace) Handle() *netlink.Handle { return n.handle }

// Do runs f inside the namespace, on a thread of its own that is destroyed afterwards, and returns f's
// error as it is. Sockets, devices and files that f opens belong to the namespace and stay in it;
// goroutines that f starts do not run in it. /proc/sys/net and /proc/thread-self/net show the
// namespace, /sys and /proc/net do not. f must not call FailNow of package testing.
func (n *Namespace) Do(f func() error) error {
	return onFreshThread(func() error {
		if err := n.enter(); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.name, err)
		}
		return f()
	})
}

// enter moves the current thread into the namespace, for good.
func (n *Namespace) enter() error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.fd < 0 {
		return ErrClosed
	}
	return unix.Setns(n.fd, unix.CLONE_NEWNET)
}

// onKeeper runs f on the thread that lives as long as the namespace.
func (n *Namespace) onKeeper(f func() error) error {
	result := make(chan error, 1)
	select {
	case n.calls <- func() { result <- f() }:
		return <-result
	case <-n.closed:
		return ErrClosed
	}
}

// Sysctl sets a key in dotted form, such as net.ipv4.ip_forward, inside the namespace. An interface
// whose own name has a dot is written with a slash in its place, as sysctl(8) does.
func (n *Namespace) Sysctl(key, value string) error {
	return n.Do(func() error { return writeSysctl(key, value) })
}

// ReadSysctl returns the value of a key as [Namespace.Sysctl] names it, without the final newline.
func (n *Namespace) ReadSysctl(key string) (string, error) {
	var value string
	err := n.Do(func() error {
		data, err := os.ReadFile(sysctlPath(key))
		if err != nil {
			return fmt.Errorf("read sysctl %s: %w", key, err)
		}
		value = strings.TrimSuffix(string(data), "\n")
		return nil
	})
	return value, err
}

// Close gives up the namespace. Processes started by [Namespace.Command] that are still running are
// killed. The kernel removes the namespace and its interfaces once no socket or process is left in it.
// A second Close does nothing.
func (n *Namespace) Close() error {
	var err error
	n.once.Do(func() {
		close(n.closed)
		<-n.kept
		n.handle.Close()
		n.mu.Lock()
		defer n.mu.Unlock()
		err = unix.Close(n.fd)
		n.fd = -1
	})
	if err != nil {
		return fmt.Errorf("close network namespace %s: %w", n.name, err)
	}
	return nil
}

// sysctlPath turns net.ipv4.conf.eth0/5.forwarding into /proc/sys/net/ipv4/conf/eth0.5/forwarding.
func sysctlPath(key string) string {
	swap := strings.NewReplacer(".", "/", "/", ".")
	return filepath.Join("/proc/sys", swap.Replace(key))
}

func writeSysctl(key, value string) error {
	// os.WriteFile would create or truncate; a sysctl takes one write.
	f, err := os.OpenFile(sysctlPath(key), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set sysctl %s: %w", key, err)
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set sysctl %s to %q: %w", key, value, err)
	}
	return nil
}

package hosttest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience is how long anything may take before a test gives up instead of hanging.
const patience = 10 * time.Second

// Enter moves the test's goroutine, locked to its thread, into a new network namespace until the test ends.
// The loopback interface is up. New interfaces get no link-local addresses, which come and get usable some
// time after the link, and so would make two listings differ. It skips the test only when the process really
// lacks the capability.
func Enter(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	old, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		needs(t, unix.CAP_SYS_ADMIN, "make a network namespace", err)
	}
	t.Cleanup(func() {
		// On failure the thread stays locked and dies with the goroutine: nothing else may run in this
		// namespace.
		if err := unix.Setns(int(old.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		if err := old.Close(); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
	Sysctl(t, "net/ipv6/conf/default/addr_gen_mode", "1")
	Up(t, "lo")
}

// needs skips a test that failed for want of a capability, and fails it when the capability is there.
func needs(t *testing.T, capability int, what string, err error) {
	t.Helper()
	status, readErr := os.ReadFile("/proc/thread-self/status")
	if readErr != nil {
		t.Fatal(readErr)
	}
	for line := range strings.Lines(string(status)) {
		text, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		effective, parseErr := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if parseErr != nil {
			t.Fatal(parseErr)
		}
		if effective&(1<<capability) == 0 {
			t.Skipf("cannot %s: %v (capability %d is missing; run as root)", what, err, capability)
		}
	}
	t.Fatalf("cannot %s although the capability is there: %v", what, err)
}

// Link makes a pair of connected virtual Ethernet interfaces, both down.
func Link(t *testing.T, a, b string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: b}); err != nil {
		t.Fatalf("make veth %s: %v", a, err)
	}
}

// Wired makes interfaces that are up, each connected to another of its name with "-p" behind it.
func Wired(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		Link(t, name, name+"-p")
		Up(t, name, name+"-p")
	}
}

// Up sets interfaces up.
func Up(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := netlink.LinkSetUp(find(t, name)); err != nil {
			t.Fatalf("set %s up: %v", name, err)
		}
	}
}

// Settle sets an interface up and down once: the kernel gives it its queueing discipline and its peer a
// multicast route at the first time and keeps those, which a comparison of listings would see.
func Settle(t *testing.T, name string) {
	t.Helper()
	Up(t, name)
	settled(t)
	if err := netlink.LinkSetDown(find(t, name)); err != nil {
		t.Fatalf("set %s down: %v", name, err)
	}
}

// Address adds an address such as "192.0.2.1/24" to an interface.
func Address(t *testing.T, name, prefix string) {
	t.Helper()
	addr := &netlink.Addr{IPNet: IPNet(prefix)}
	if addr.IP.To4() == nil {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(find(t, name), addr); err != nil {
		t.Fatalf("add %s to %s: %v", prefix, name, err)
	}
	settled(t)
}

// Route adds a route to the main table; via may be empty.
func Route(t *testing.T, prefix, name, via string) {
	t.Helper()
	r := &netlink.Route{Dst: IPNet(prefix), LinkIndex: find(t, name).Attrs().Index}
	if via != "" {
		r.Gw = net.ParseIP(via)
	}
	if err := netlink.RouteAdd(r); err != nil {
		t.Fatalf("add route %s dev %s: %v", prefix, name, err)
	}
}

// Index returns an interface's index.
func Index(t *testing.T, name string) int {
	t.Helper()
	return find(t, name).Attrs().Index
}

func find(t *testing.T, name string) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("find %s: %v", name, err)
	}
	return link
}

// IPNet parses a prefix, host bits and all.
func IPNet(prefix string) *net.IPNet {
	p := netip.MustParsePrefix(prefix)
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Sysctl writes a parameter given by its path below /proc/sys.
func Sysctl(t *testing.T, key, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// ReadSysctl reads a parameter given by its path below /proc/sys.
func ReadSysctl(t *testing.T, key string) string {
	t.Helper()
	data, err := os.ReadFile("/proc/sys/" + key)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// TUN makes a TUN interface without packet information and returns its descriptor; closing it removes the
// interface.
func TUN(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		t.Fatalf("make TUN %s: %v", name, err)
	}
	file := os.NewFile(uintptr(fd), "/dev/net/tun "+name)
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// ReadUntil reads packets from a TUN device until one is wanted, and returns it: the kernel sends some of its own as well.
func ReadUntil(t *testing.T, tun *os.File, what string, wanted func(packet []byte) bool) []byte {
	t.Helper()
	if err := tun.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 1<<16)
	for {
		n, err := tun.Read(buffer)
		if err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if wanted(buffer[:n]) {
			return buffer[:n]
		}
	}
}

// OneCPU keeps the calling thread, which must be locked, on one processor until the test ends, so that the
// packets it gives to the kernel one after the other are also handled one after the other.
func OneCPU(t *testing.T) {
	t.Helper()
	var all, first unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; first.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			first.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &first); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.SchedSetaffinity(0, &all); err != nil {
			t.Error(err)
		}
	})
}

// Restored fails the test when undoing has left something, or the listing is not the one from before.
func Restored[L any](t *testing.T, before string, left []L, what string) {
	t.Helper()
	if len(left) > 0 {
		t.Errorf("%s: left %v", what, left)
	}
	Same(t, before, Listing(t), what)
}

// Same fails the test when two listings differ, and shows the lines that do.
func Same(t *testing.T, before, after, what string) {
	t.Helper()
	if before == after {
		return
	}
	count := map[string]int{}
	for line := range strings.Lines(before) {
		count[line]--
	}
	for line := range strings.Lines(after) {
		count[line]++
	}
	var diff strings.Builder
	for line, n := range count {
		switch {
		case n < 0:
			fmt.Fprintf(&diff, "- %s", line)
		case n > 0:
			fmt.Fprintf(&diff, "+ %s", line)
		}
	}
	t.Errorf("%s: the network state is not as it was:\n%s", what, diff.String())
}

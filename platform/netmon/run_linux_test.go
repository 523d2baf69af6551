package netmon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
)

// watch runs a monitor in the test's namespace until the test ends.
func watch(t *testing.T, m *Monitor) {
	t.Helper()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		// The thread is not unlocked, so it ends with this goroutine and nothing else runs in the namespace.
		runtime.LockOSThread()
		if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
			ended <- err
			return
		}
		ended <- m.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, own.Close()); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-m.Ready():
	case err := <-ended:
		ended <- err
		t.Fatalf("Run ended: %v", err)
	}
}

// wait collects events until all of want has been seen.
func wait(t *testing.T, m *Monitor, want Change) Change {
	t.Helper()
	var got Change
	limit := time.After(20 * time.Second)
	for got.or(want) != got {
		select {
		case c := <-m.Changes():
			got = got.or(c)
		case <-limit:
			t.Fatalf("saw %+v, want %+v", got, want)
		}
	}
	return got
}

func TestChangesOfTheHostAreReported(t *testing.T) {
	hosttest.Enter(t)
	hosttest.Link(t, "eth0", "eth0-p")
	hosttest.Up(t, "eth0-p")
	m := New(Config{Ignore: []string{"aether0"}})
	watch(t, m)
	hosttest.Up(t, "eth0")
	wait(t, m, Change{Link: true})
	hosttest.Address(t, "eth0", "192.0.2.2/24")
	wait(t, m, Change{Address: true})
	hosttest.Address(t, "eth0", "2001:db8::2/64")
	wait(t, m, Change{Address: true})
	hosttest.Route(t, "0.0.0.0/0", "eth0", "192.0.2.1")
	wait(t, m, Change{Default: true})
	hosttest.Route(t, "::/1", "eth0", "2001:db8::1")
	wait(t, m, Change{Default: true})
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	wait(t, m, Change{Link: true, Address: true})
}

// TestOwnInterfaceIsIgnored changes everything about our interface, and then something else as a marker: only
// the marker is reported.
func TestOwnInterfaceIsIgnored(t *testing.T) {
	hosttest.Enter(t)
	hosttest.Wired(t, "eth0")
	hosttest.Settle(t, "eth0-p")
	hosttest.Up(t, "eth0-p")
	hosttest.Address(t, "eth0", "192.0.2.2/24") // waits until the links are settled
	m := New(Config{Ignore: []string{"aether0"}})
	watch(t, m)
	tun := hosttest.TUN(t, "aether0")
	hosttest.Up(t, "aether0")
	hosttest.Address(t, "aether0", "100.80.0.1/16")
	hosttest.Address(t, "aether0", "fd80::1/48")
	hosttest.Route(t, "0.0.0.0/0", "aether0", "")
	hosttest.Route(t, "10.5.0.0/16", "eth0", "192.0.2.1")
	if err := tun.Close(); err != nil {
		t.Fatal(err)
	}
	hosttest.Route(t, "0.0.0.0/0", "eth0", "192.0.2.1")
	if got := wait(t, m, Change{Default: true}); got != (Change{Default: true}) {
		t.Errorf("reported %+v", got)
	}
}

// TestRepetitionsAreNoChange applies the same kernel messages twice.
func TestRepetitionsAreNoChange(t *testing.T) {
	hosttest.Enter(t)
	hosttest.Link(t, "eth0", "eth0-p")
	v, err := snapshot(nil)
	if err != nil {
		t.Fatal(err)
	}
	index := hosttest.Index(t, "eth0")
	link := datagram(unix.RTM_NEWLINK, ifInfo(index, unix.IFF_UP), attribute(unix.IFLA_IFNAME, []byte("eth0\x00")),
		attribute(unix.IFLA_MTU, binary.NativeEndian.AppendUint32(nil, 1500)))
	addr := netip.MustParseAddr("2001:db8::1")
	address := func(flags uint32) []byte {
		return datagram(unix.RTM_NEWADDR, ifAddr(index, 64), attribute(unix.IFA_ADDRESS, addr.AsSlice()),
			attribute(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, flags)))
	}
	steps := []struct {
		name string
		data []byte
		want Change
	}{
		{"link up", link, Change{Link: true}},
		{"link again", link, Change{}},
		{"tentative address", address(unix.IFA_F_TENTATIVE), Change{Address: true}},
		{"again", address(unix.IFA_F_TENTATIVE), Change{}},
		{"usable", address(0), Change{Address: true}},
		{"lifetime refreshed", address(unix.IFA_F_MANAGETEMPADDR), Change{}},
		{"deprecated", address(unix.IFA_F_DEPRECATED), Change{Address: true}},
		{"both at once", append(append([]byte{}, link...), address(unix.IFA_F_DEPRECATED)...), Change{}},
	}
	for _, step := range steps {
		got, err := v.apply(step.data)
		if err != nil || got != step.want {
			t.Errorf("%s: %+v, %v; want %+v", step.name, got, err, step.want)
		}
	}
}

// TestOverrunIsReportedAndSurvived fills the receive buffer before the monitor reads from it, so that the
// kernel drops messages. The monitor says so, and reports what changes afterwards.
func TestOverrunIsReportedAndSurvived(t *testing.T) {
	hosttest.Enter(t)
	hosttest.Wired(t, "eth0")
	m := New(Config{})
	m.receiveBytes = 1
	first := true
	m.subscribed = func() {
		if !first {
			return
		}
		first = false
		for i := range 200 {
			hosttest.Address(t, "eth0", fmt.Sprintf("10.1.%d.1/24", i))
		}
	}
	watch(t, m)
	wait(t, m, Change{Lost: true})
	hosttest.Route(t, "0.0.0.0/0", "eth0", "10.1.0.9")
	wait(t, m, Change{Default: true})
}

func TestRunTwice(t *testing.T) {
	hosttest.Enter(t)
	m := New(Config{})
	watch(t, m)
	if err := m.Run(t.Context()); !errors.Is(err, ErrRunning) {
		t.Errorf("second Run: %v", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	hosttest.Enter(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(Config{}).Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func datagram(kind uint16, parts ...[]byte) []byte {
	out := slices.Concat(append([][]byte{make([]byte, unix.SizeofNlMsghdr)}, parts...)...)
	binary.NativeEndian.PutUint32(out, uint32(len(out)))
	binary.NativeEndian.PutUint16(out[4:], kind)
	return out
}

func ifInfo(index int, flags uint32) []byte {
	out := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(out[4:], uint32(index))
	binary.NativeEndian.PutUint32(out[8:], flags)
	return out
}

func ifAddr(index int, bits byte) []byte {
	out := make([]byte, unix.SizeofIfAddrmsg)
	out[0], out[1] = unix.AF_INET6, bits
	binary.NativeEndian.PutUint32(out[4:], uint32(index))
	return out
}

func attribute(kind uint16, value []byte) []byte {
	out := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	out = append(binary.NativeEndian.AppendUint16(out, kind), value...)
	return append(out, make([]byte, aligned(len(out))-len(out))...)
}

func FuzzApply(f *testing.F) {
	f.Add(datagram(unix.RTM_NEWLINK, ifInfo(3, unix.IFF_UP), attribute(unix.IFLA_IFNAME, []byte("eth0\x00"))))
	f.Add(datagram(unix.RTM_DELADDR, ifAddr(3, 64), attribute(unix.IFA_LOCAL, []byte{1, 2, 3, 4})))
	f.Add(datagram(unix.RTM_NEWROUTE, []byte{2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0},
		attribute(unix.RTA_OIF, []byte{1, 0, 0, 0})))
	f.Add([]byte{16, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		v := &view{links: map[int32]linkState{}, addresses: map[addressKey]uint32{}}
		if _, err := v.apply(data); err != nil && !errors.Is(err, errMessage) {
			t.Fatal(err)
		}
		if len(v.links)+len(v.addresses) > len(data)/unix.SizeofNlMsghdr {
			t.Fatalf("%d entries from %d bytes", len(v.links)+len(v.addresses), len(data))
		}
	})
}

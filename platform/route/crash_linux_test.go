package route

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
	"github.com/aethertunnel/aethertunnel/platform/journal/journaltest"
	"github.com/aethertunnel/aethertunnel/platform/sysctl"
)

// TestCrashAtEveryStep stops Set before its n-th change, for every n, throws the daemon away and undoes the
// journal as the next start does.
func TestCrashAtEveryStep(t *testing.T) {
	host(t)
	before := hosttest.Listing(t)
	dir := t.TempDir()
	state := filepath.Join(dir, "a")
	second := goodPlan()
	second.MTU, second.Routes = 1300, second.Routes[:1]
	second.Guards = second.Guards[:1]
	for n := 0; ; n++ {
		d := start(t, dir, state)
		count := 0
		d.m.step = func() error {
			if count++; count > n {
				return journaltest.ErrCrash
			}
			return nil
		}
		_, err := d.m.Set(goodPlan())
		if err == nil {
			_, err = d.m.Set(second)
		}
		if err != nil && !errors.Is(err, journaltest.ErrCrash) {
			t.Fatal(err)
		}
		if err := d.j.Close(); err != nil {
			t.Fatal(err)
		}
		start(t, dir, state).mustRestore(before, fmt.Sprintf("crash at step %d", n))
		if err == nil && n < 12 {
			t.Errorf("only %d steps", n)
		}
		if t.Failed() || err == nil {
			break
		}
	}
}

func TestCrashAtEveryJournalCall(t *testing.T) {
	host(t)
	before := hosttest.Listing(t)
	dir := t.TempDir()
	state := filepath.Join(dir, "a")
	second := goodPlan()
	second.MTU, second.Routes = 1300, second.Routes[:1]
	journaltest.EachCall(t, 2, func(f *journaltest.Failing, what string) error {
		d := start(t, dir, state)
		f.Journal = d.j
		h, err := sysctl.New(sysctl.Config{Dir: dir, StateDir: state, Scope: d.j.Scope(), Journal: f})
		if err != nil {
			t.Fatal(err)
		}
		m := New(Config{Journal: f, Sysctls: h})
		_, err = m.Set(goodPlan())
		if err != nil && f.Calls == 1 {
			hosttest.Same(t, before, hosttest.Listing(t), "failed first record")
		}
		if err == nil {
			_, err = m.Set(second)
		}
		if err := d.j.Close(); err != nil {
			t.Fatal(err)
		}
		start(t, dir, state).mustRestore(before, what)
		return err
	})
}

// TestKilledDaemonLeaksNothing: with the interface gone, as after kill -9, packets for tunnel addresses are
// refused by the guards instead of taking the default route; undoing then leaves nothing.
func TestKilledDaemonLeaksNothing(t *testing.T) {
	hosttest.Enter(t)
	hosttest.Wired(t, "eth0")
	hosttest.Address(t, "eth0", "192.0.2.2/24")
	hosttest.Route(t, "0.0.0.0/0", "eth0", "192.0.2.1")
	before := hosttest.Listing(t)
	dir := t.TempDir()
	state := filepath.Join(dir, "a")
	tun := hosttest.TUN(t, "aether0")
	d := start(t, dir, state)
	d.set(goodPlan())
	if err := errors.Join(tun.Close(), d.j.Close()); err != nil {
		t.Fatal(err)
	}
	for _, inner := range []string{"100.80.0.1", "fd80::1"} {
		_, err := netlink.RouteGet(net.ParseIP(inner))
		if !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("route to %s after the interface went: %v", inner, err)
		}
	}
	start(t, dir, state).mustRestore(before, "undone after the interface went")
}

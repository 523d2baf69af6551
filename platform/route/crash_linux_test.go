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
		if left := start(t, dir, state).undo(); len(left) > 0 {
			t.Errorf("crash at step %d: left %v", n, left)
		}
		hosttest.Same(t, before, hosttest.Listing(t), fmt.Sprintf("crash at step %d", n))
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
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			d := start(t, dir, state)
			r := &journaltest.Failing{Journal: d.j, FailAt: n, After: after}
			h, err := sysctl.New(sysctl.Config{Dir: dir, StateDir: state, Scope: d.j.Scope(), Journal: r})
			if err != nil {
				t.Fatal(err)
			}
			m := New(Config{Journal: r, Sysctls: h})
			_, err = m.Set(goodPlan())
			if err != nil && r.Calls == 1 {
				hosttest.Same(t, before, hosttest.Listing(t), "failed first record")
			}
			if err == nil {
				_, err = m.Set(second)
			}
			if err != nil && !errors.Is(err, journaltest.ErrCrash) {
				t.Fatal(err)
			}
			if err := d.j.Close(); err != nil {
				t.Fatal(err)
			}
			if left := start(t, dir, state).undo(); len(left) > 0 {
				t.Errorf("journal call %d: left %v", n, left)
			}
			hosttest.Same(t, before, hosttest.Listing(t), fmt.Sprintf("journal call %d, after %v", n, after))
			if t.Failed() || err == nil {
				break
			}
		}
	}
}

// TestKilledDaemonLeaksNothing: with the interface gone, as after kill -9, packets for tunnel addresses are
// refused by the guards instead of taking the default route; undoing then leaves nothing.
func TestKilledDaemonLeaksNothing(t *testing.T) {
	hosttest.Enter(t)
	hosttest.Link(t, "eth0", "eth0-peer")
	hosttest.Up(t, "eth0", "eth0-peer")
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
	if left := start(t, dir, state).undo(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	hosttest.Same(t, before, hosttest.Listing(t), "undone after the interface went")
}

package route

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal"
	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
	"github.com/aethertunnel/aethertunnel/platform/journal/journaltest"
	"github.com/aethertunnel/aethertunnel/platform/sysctl"
)

// daemon is one instance: a journal, its holds and a manager.
type daemon struct {
	t *testing.T
	j *journal.Journal
	h *sysctl.Holds
	m *Manager
}

func start(t *testing.T, run, state string) *daemon {
	t.Helper()
	j := journaltest.Open(t, state)
	h, err := sysctl.New(sysctl.Config{Dir: run, StateDir: state, Scope: j.Scope(), Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	return &daemon{t: t, j: j, h: h, m: New(Config{Journal: j, Sysctls: h})}
}

func one(t *testing.T) *daemon {
	t.Helper()
	dir := t.TempDir()
	return start(t, dir, filepath.Join(dir, "a"))
}

func (d *daemon) set(p Plan) []Notice {
	d.t.Helper()
	notices, err := d.m.Set(p)
	if err != nil {
		d.t.Fatal(err)
	}
	return notices
}

// undo undoes the journal and closes it, as at the end of a daemon or at the start after a crash.
func (d *daemon) undo() []journal.Left {
	d.t.Helper()
	return journaltest.Undo(d.t, d.j, Undoers(), sysctl.Undoers())
}

// mustRestore undoes everything, after which the host must be as before.
func (d *daemon) mustRestore(before, what string) {
	d.t.Helper()
	hosttest.Restored(d.t, before, d.undo(), what)
}

// host enters a namespace with an uplink and an interface "aether0" that outlives us, so that what is set on
// it has to be undone by hand.
func host(t *testing.T) {
	t.Helper()
	hosttest.Enter(t)
	hosttest.Wired(t, "eth0")
	hosttest.Address(t, "eth0", "192.0.2.2/24")
	hosttest.Address(t, "eth0", "2001:db8::2/64")
	hosttest.Route(t, "0.0.0.0/0", "eth0", "192.0.2.1")
	hosttest.Route(t, "::/0", "eth0", "2001:db8::1")
	hosttest.Link(t, "aether0", "aether0-peer")
	hosttest.Up(t, "aether0-peer")
	hosttest.Settle(t, "aether0")
}

func TestSetAndUndoLeaveTheHostAsItWas(t *testing.T) {
	host(t)
	before := hosttest.Listing(t)
	d := one(t)
	if notices := d.set(goodPlan()); len(notices) > 0 {
		t.Errorf("notices %v", notices)
	}
	during := hosttest.Listing(t)
	if during == before {
		t.Fatal("nothing was set")
	}
	pending := len(d.j.Pending())
	if notices := d.set(goodPlan()); len(notices) > 0 {
		t.Errorf("notices %v", notices)
	}
	hosttest.Same(t, during, hosttest.Listing(t), "second Set")
	if n := len(d.j.Pending()); n != pending {
		t.Errorf("second Set recorded %d changes", n-pending)
	}
	d.mustRestore(before, "undone")
}

func TestPlanIsWhatTheKernelHas(t *testing.T) {
	host(t)
	d := one(t)
	p := goodPlan()
	d.set(p)
	state, err := readKernel()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := state.find("aether0")
	for _, want := range desired(p.Canonical(), id, ipv6Full) {
		if !want.present(state) {
			t.Errorf("missing: %s", want.key())
		}
	}
	link := state.links[id.Index]
	if link.MTU != 1420 || link.TxQLen != 500 || link.RawFlags&unix.IFF_UP == 0 {
		t.Errorf("link mtu %d, queue %d, flags %x", link.MTU, link.TxQLen, link.RawFlags)
	}
	for slot, a := range state.addresses {
		if slot.index == id.Index && !slot.prefix.Addr().IsLinkLocalUnicast() && a.Flags&unix.IFA_F_NOPREFIXROUTE == 0 {
			t.Errorf("%v makes a route of its own", slot.prefix)
		}
	}
	for slot := range state.routes {
		if slot.table == unix.RT_TABLE_MAIN && slot.prefix.Overlaps(netip.MustParsePrefix("100.80.0.0/16")) &&
			slot.prefix.Bits() > 0 {
			t.Errorf("route in the main table: %v", slot)
		}
	}
	if got := hosttest.ReadSysctl(t, sysctl.SrcValidMark); got != "1" {
		t.Errorf("src_valid_mark %s", got)
	}
}

func TestChangedPlanMakesOnlyTheDifference(t *testing.T) {
	host(t)
	before := hosttest.Listing(t)
	d := one(t)
	first := goodPlan()
	d.set(first)
	firstListing := hosttest.Listing(t)
	second := goodPlan()
	second.MTU, second.TxQueuePackets = 1300, 0
	second.Addresses = prefixes("100.80.0.3/16", "fd80::2/48")
	second.Routes = append(second.Routes[:2:2], Route{Prefix: netip.MustParsePrefix("10.88.0.0/16")})
	second.Guards = prefixes("100.80.0.0/16")
	d.set(second)
	state, err := readKernel()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := state.find("aether0")
	for _, gone := range []thing{
		&addressThing{deviceID: id, Prefix: netip.MustParsePrefix("100.80.0.2/16")},
		&routeThing{deviceID: id, Prefix: netip.MustParsePrefix("10.77.0.0/24"), Table: 123456, Metric: 50},
		&routeThing{Prefix: netip.MustParsePrefix("fd80::/48"), Table: 123456, Metric: GuardMetric},
	} {
		if gone.present(state) {
			t.Errorf("still there: %s", gone.key())
		}
	}
	if mtu := state.links[id.Index].MTU; mtu != 1300 {
		t.Errorf("mtu %d", mtu)
	}
	d.set(first)
	hosttest.Same(t, firstListing, hosttest.Listing(t), "back to the first plan")
	d.mustRestore(before, "undone")
}

func TestSetRepairsWhatWasRemoved(t *testing.T) {
	host(t)
	d := one(t)
	d.set(goodPlan())
	during := hosttest.Listing(t)
	link, err := netlink.LinkByName("aether0")
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(netlink.Link) error{netlink.LinkSetDown, netlink.LinkSetUp} {
		if err := change(link); err != nil {
			t.Fatal(err)
		}
	}
	rule := ruleThing{Selectors: goodPlan().Selectors}
	if err := netlink.RuleDel(rule.message()); err != nil {
		t.Fatal(err)
	}
	d.set(goodPlan())
	hosttest.Same(t, during, hosttest.Listing(t), "repaired")
}

func TestDisabledIPv6IsANotice(t *testing.T) {
	for _, key := range []string{"net/ipv6/conf/aether0/disable_ipv6", "net/ipv6/conf/all/disable_ipv6"} {
		host(t)
		hosttest.Sysctl(t, key, "1")
		before := hosttest.Listing(t)
		d := one(t)
		notices := d.set(goodPlan())
		if len(notices) != 1 || notices[0].Kind != IPv6Off || !strings.Contains(notices[0].Detail, "disable_ipv6") {
			t.Errorf("%s: notices %v", key, notices)
		}
		found, err := netlink.RouteGet(net.ParseIP("100.80.0.9"))
		if err != nil || found[0].LinkIndex != hosttest.Index(t, "aether0") {
			t.Errorf("%s: IPv4 route %v, %v", key, found, err)
		}
		d.mustRestore(before, key)
	}
}

func TestSmallMTUIsANotice(t *testing.T) {
	host(t)
	before := hosttest.Listing(t)
	d := one(t)
	p := goodPlan()
	p.MTU = 1200
	if notices := d.set(p); len(notices) != 1 || notices[0].Kind != IPv6Off {
		t.Errorf("notices %v", notices)
	}
	d.mustRestore(before, "small mtu undone")
}

func TestMissingDevice(t *testing.T) {
	hosttest.Enter(t)
	before := hosttest.Listing(t)
	d := one(t)
	if _, err := d.m.Set(goodPlan()); !errors.Is(err, unix.ENODEV) {
		t.Errorf("Set: %v", err)
	}
	hosttest.Same(t, before, hosttest.Listing(t), "missing device")
}

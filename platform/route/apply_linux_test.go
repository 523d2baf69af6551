package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal"
	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
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
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	h, err := sysctl.New(sysctl.Config{Dir: run, StateDir: state, Scope: j.Scope(), Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	return &daemon{t: t, j: j, h: h, m: New(Config{Journal: j, Sysctls: h})}
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
	report := d.j.Undo(journal.Merge(Undoers(), sysctl.Undoers()))
	if err := report.Err(); err != nil {
		d.t.Fatal(err)
	}
	if n := len(d.j.Pending()); n > 0 {
		d.t.Errorf("%d records pending after undoing", n)
	}
	if err := d.j.Close(); err != nil {
		d.t.Fatal(err)
	}
	return report.Left
}

// host enters a namespace with an uplink and an interface "aether0" that outlives us, so that what is set on
// it has to be undone by hand.
func host(t *testing.T) {
	t.Helper()
	hosttest.Enter(t)
	hosttest.Link(t, "eth0", "eth0-peer")
	hosttest.Up(t, "eth0", "eth0-peer")
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
	dir := t.TempDir()
	d := start(t, dir, filepath.Join(dir, "a"))
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
	if left := d.undo(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	hosttest.Same(t, before, hosttest.Listing(t), "undone")
}

func TestPlanIsWhatTheKernelHas(t *testing.T) {
	host(t)
	dir := t.TempDir()
	d := start(t, dir, filepath.Join(dir, "a"))
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
	dir := t.TempDir()
	d := start(t, dir, filepath.Join(dir, "a"))
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
	if left := d.undo(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	hosttest.Same(t, before, hosttest.Listing(t), "undone")
}

func TestSetRepairsWhatWasRemoved(t *testing.T) {
	host(t)
	dir := t.TempDir()
	d := start(t, dir, filepath.Join(dir, "a"))
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

var errCrash = errors.New("crash")

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
				return errCrash
			}
			return nil
		}
		_, err := d.m.Set(goodPlan())
		if err == nil {
			_, err = d.m.Set(second)
		}
		if err != nil && !errors.Is(err, errCrash) {
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

// recorder fails the n-th call of a journal, before or after doing it.
type recorder struct {
	*journal.Journal
	calls, failAt int
	after         bool
}

func (r *recorder) call(do func() error) error {
	r.calls++
	if r.calls != r.failAt {
		return do()
	}
	if !r.after {
		return errCrash
	}
	return errors.Join(do(), errCrash)
}

func (r *recorder) Record(changes ...journal.Change) (ids []journal.ID, err error) {
	err = r.call(func() (err error) { ids, err = r.Journal.Record(changes...); return err })
	return ids, err
}

func (r *recorder) Forget(ids ...journal.ID) error {
	return r.call(func() error { return r.Journal.Forget(ids...) })
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
			r := &recorder{Journal: d.j, failAt: n, after: after}
			h, err := sysctl.New(sysctl.Config{Dir: dir, StateDir: state, Scope: d.j.Scope(), Journal: r})
			if err != nil {
				t.Fatal(err)
			}
			m := New(Config{Journal: r, Sysctls: h})
			_, err = m.Set(goodPlan())
			if err != nil && r.calls == 1 {
				hosttest.Same(t, before, hosttest.Listing(t), "failed first record")
			}
			if err == nil {
				_, err = m.Set(second)
			}
			if err != nil && !errors.Is(err, errCrash) {
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

func TestChangesOfOthersAreLeftAndReported(t *testing.T) {
	host(t)
	dir := t.TempDir()
	d := start(t, dir, filepath.Join(dir, "a"))
	p := goodPlan()
	d.set(p)
	// A route of somebody else in the slot of our guard.
	guard := routeThing{Prefix: p.Guards[0], Table: p.Table, Metric: GuardMetric}
	foreignRoute := guard.message()
	foreignRoute.Type, foreignRoute.Protocol = unix.RTN_BLACKHOLE, unix.RTPROT_STATIC
	// A route like ours, but put there by somebody else.
	id := deviceID{Device: "aether0", Index: hosttest.Index(t, "aether0")}
	inner := routeThing{deviceID: id, Prefix: netip.MustParsePrefix("10.77.0.0/24"), Table: p.Table, Metric: 50}
	foreignInner := inner.message()
	foreignInner.Protocol = unix.RTPROT_STATIC
	// A rule of somebody else at our priority instead of ours.
	ours := ruleThing{Selectors: p.Selectors}
	foreignRule := netlink.NewRule()
	foreignRule.Family, foreignRule.Priority, foreignRule.Table = unix.AF_INET, int(p.Priority), 254
	link, err := netlink.LinkByName("aether0")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		netlink.RouteDel(guard.message()), netlink.RouteAdd(foreignRoute),
		netlink.RouteDel(inner.message()), netlink.RouteAdd(foreignInner),
		netlink.RuleDel(ours.message()), netlink.RuleAdd(foreignRule),
		netlink.LinkSetMTU(link, 1400),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	hosttest.Sysctl(t, "net/ipv4/conf/all/src_valid_mark", "0")
	left := d.undo()
	var things []string
	for _, l := range left {
		things = append(things, l.Thing)
		if l.Set == "" || l.Found == "" || l.Set == l.Found {
			t.Errorf("line %+v", l)
		}
	}
	want := []string{
		"link aether0 mtu", "ipv4 rule priority 2000", "route 100.80.0.0/16 table 123456 metric 1073741824",
		"route 10.77.0.0/24 table 123456 metric 50",
	}
	slices.Sort(want)
	slices.Sort(things)
	if !slices.Equal(things, want) {
		t.Errorf("left %q, want %q", things, want)
	}
	state, err := readKernel()
	if err != nil {
		t.Fatal(err)
	}
	if len(state.routes[guard.slot()]) != 1 {
		t.Error("the route of somebody else is gone")
	}
	theirs := func(r netlink.Rule) bool { return r.Priority == int(p.Priority) }
	if !slices.ContainsFunc(state.rules[unix.AF_INET], theirs) {
		t.Error("the rule of somebody else is gone")
	}
	if id, _ := state.find("aether0"); state.links[id.Index].MTU != 1400 {
		t.Error("the mtu of somebody else is gone")
	}
}

func TestForeignRouteInOurPlaceIsAnError(t *testing.T) {
	host(t)
	dir := t.TempDir()
	d := start(t, dir, filepath.Join(dir, "a"))
	p := goodPlan()
	guard := routeThing{Prefix: p.Guards[0], Table: p.Table, Metric: GuardMetric}
	foreign := guard.message()
	foreign.Type, foreign.Protocol = unix.RTN_BLACKHOLE, unix.RTPROT_STATIC
	if err := netlink.RouteAdd(foreign); err != nil {
		t.Fatal(err)
	}
	if _, err := d.m.Set(p); !errors.Is(err, ErrOccupied) {
		t.Errorf("Set: %v", err)
	}
}

func TestTwoDaemonsSideBySide(t *testing.T) {
	for _, firstOut := range []int{0, 1} {
		hosttest.Enter(t)
		for _, name := range []string{"aether0", "aether1"} {
			hosttest.Link(t, name, name+"-p")
			hosttest.Up(t, name+"-p")
			hosttest.Settle(t, name)
		}
		before := hosttest.Listing(t)
		dir := t.TempDir()
		var both []*daemon
		for i, name := range []string{"aether0", "aether1"} {
			state := filepath.Join(dir, name)
			d := start(t, dir, state)
			p := goodPlan()
			var err error
			if p.Selectors, err = Choose(state, Selectors{}); err != nil {
				t.Fatal(err)
			}
			p.Device = name
			p.Addresses = prefixes(fmt.Sprintf("100.%d.0.2/16", 80+i))
			p.Routes = []Route{{Prefix: netip.MustParsePrefix(fmt.Sprintf("100.%d.0.0/16", 80+i))}}
			p.Guards = []netip.Prefix{p.Routes[0].Prefix}
			d.set(p)
			again, err := Choose(state, p.Selectors)
			if err != nil || again != p.Selectors {
				t.Errorf("remembered %+v, chosen %+v, %v", p.Selectors, again, err)
			}
			if other, err := Choose(state, Selectors{}); err != nil || other == p.Selectors {
				t.Errorf("selectors in use were chosen again: %+v, %v", other, err)
			}
			both = append(both, d)
		}
		both[firstOut].undo()
		if got := hosttest.ReadSysctl(t, sysctl.SrcValidMark); got != "1" {
			t.Errorf("src_valid_mark %s while one daemon runs", got)
		}
		both[1-firstOut].undo()
		hosttest.Same(t, before, hosttest.Listing(t), fmt.Sprintf("daemon %d out first", firstOut))
	}
}

// TestForeignRoutesDivertNoInnerTraffic sends packets for inner addresses while the main table has more
// specific routes for them to another interface, and reads them from the TUN device. Marked packets go the
// other way.
func TestForeignRoutesDivertNoInnerTraffic(t *testing.T) {
	hosttest.Enter(t)
	hosttest.Link(t, "eth0", "eth0-peer")
	hosttest.Up(t, "eth0", "eth0-peer")
	hosttest.Address(t, "eth0", "192.0.2.2/24")
	hosttest.Address(t, "eth0", "2001:db8::2/64")
	for prefix, via := range map[string]string{
		"0.0.0.0/1": "192.0.2.1", "128.0.0.0/1": "192.0.2.1", "100.80.0.9/32": "192.0.2.1",
		"::/1": "2001:db8::1", "8000::/1": "2001:db8::1", "fd80::9/128": "2001:db8::1",
	} {
		hosttest.Route(t, prefix, "eth0", via)
	}
	tun := hosttest.TUN(t, "aether0")
	dir := t.TempDir()
	d := start(t, dir, filepath.Join(dir, "a"))
	p := goodPlan()
	d.set(p)
	for _, inner := range []string{"100.80.0.9", "fd80::9"} {
		target := netip.MustParseAddr(inner)
		send(t, target, inner)
		if got := readPacket(t, tun, target); !strings.HasSuffix(string(got), inner) {
			t.Errorf("packet for %s: %x", inner, got)
		}
		marked, err := netlink.RouteGetWithOptions(net.ParseIP(inner), &netlink.RouteGetOptions{Mark: p.Mark})
		if err != nil || marked[0].LinkIndex != hosttest.Index(t, "eth0") {
			t.Errorf("marked packets for %s: %v, %v", inner, marked, err)
		}
	}
}

// send sends one UDP datagram from a socket of the calling thread's namespace.
func send(t *testing.T, target netip.Addr, payload string) {
	t.Helper()
	family := familyOf(target)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: 9, Addr: target.As16()}
	if target.Is4() {
		to = &unix.SockaddrInet4{Port: 9, Addr: target.As4()}
	}
	if err := unix.Sendto(fd, []byte(payload), 0, to); err != nil {
		t.Fatalf("send to %v: %v", target, err)
	}
}

// readPacket reads from the TUN device until a packet for target comes; the kernel sends some of its own as
// well.
func readPacket(t *testing.T, tun *os.File, target netip.Addr) []byte {
	t.Helper()
	if err := tun.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 2048)
	for {
		n, err := tun.Read(buffer)
		if err != nil {
			t.Fatalf("read from the TUN device: %v", err)
		}
		destination := buffer[16:20]
		if buffer[0]>>4 == 6 {
			destination = buffer[24:40]
		}
		if addr, ok := netip.AddrFromSlice(destination); ok && addr == target {
			return buffer[:n]
		}
	}
}

func TestDisabledIPv6IsANotice(t *testing.T) {
	for _, key := range []string{"net/ipv6/conf/aether0/disable_ipv6", "net/ipv6/conf/all/disable_ipv6"} {
		host(t)
		hosttest.Sysctl(t, key, "1")
		before := hosttest.Listing(t)
		dir := t.TempDir()
		d := start(t, dir, filepath.Join(dir, "a"))
		notices := d.set(goodPlan())
		if len(notices) != 1 || notices[0].Kind != IPv6Off || !strings.Contains(notices[0].Detail, "disable_ipv6") {
			t.Errorf("%s: notices %v", key, notices)
		}
		found, err := netlink.RouteGet(net.ParseIP("100.80.0.9"))
		if err != nil || found[0].LinkIndex != hosttest.Index(t, "aether0") {
			t.Errorf("%s: IPv4 route %v, %v", key, found, err)
		}
		if left := d.undo(); len(left) > 0 {
			t.Errorf("left %v", left)
		}
		hosttest.Same(t, before, hosttest.Listing(t), key)
	}
}

func TestSmallMTUIsANotice(t *testing.T) {
	host(t)
	before := hosttest.Listing(t)
	dir := t.TempDir()
	d := start(t, dir, filepath.Join(dir, "a"))
	p := goodPlan()
	p.MTU = 1200
	if notices := d.set(p); len(notices) != 1 || notices[0].Kind != IPv6Off {
		t.Errorf("notices %v", notices)
	}
	d.undo()
	hosttest.Same(t, before, hosttest.Listing(t), "small mtu undone")
}

func TestMissingDevice(t *testing.T) {
	hosttest.Enter(t)
	before := hosttest.Listing(t)
	dir := t.TempDir()
	d := start(t, dir, filepath.Join(dir, "a"))
	if _, err := d.m.Set(goodPlan()); !errors.Is(err, unix.ENODEV) {
		t.Errorf("Set: %v", err)
	}
	hosttest.Same(t, before, hosttest.Listing(t), "missing device")
}

func TestAddressThatWasThereIsKept(t *testing.T) {
	host(t)
	hosttest.Up(t, "aether0")
	hosttest.Address(t, "aether0", "100.80.0.2/16")
	before := hosttest.Listing(t)
	dir := t.TempDir()
	d := start(t, dir, filepath.Join(dir, "a"))
	d.set(goodPlan())
	d.undo()
	hosttest.Same(t, before, hosttest.Listing(t), "with an address of somebody else")
}

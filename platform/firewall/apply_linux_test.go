package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal"
	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
	"github.com/aethertunnel/aethertunnel/platform/journal/journaltest"
	"github.com/aethertunnel/aethertunnel/platform/route"
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

func (d *daemon) set(p Plan) {
	d.t.Helper()
	if err := d.m.Set(p); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) undo() []journal.Left {
	d.t.Helper()
	return journaltest.Undo(d.t, d.j, Undoers(), sysctl.Undoers(), route.Undoers())
}

// mustRestore undoes everything, after which the host must be as before.
func (d *daemon) mustRestore(before, what string) {
	d.t.Helper()
	hosttest.Restored(d.t, before, d.undo(), what)
}

// router enters a namespace with two TUN devices whose other ends the test holds: the tunnel and the LAN.
func router(t *testing.T) (tunnel, lan *os.File) {
	t.Helper()
	hosttest.Enter(t)
	hosttest.OneCPU(t)
	tunnel, lan = hosttest.TUN(t, "aether0"), hosttest.TUN(t, "lan0")
	hosttest.Up(t, "aether0", "lan0")
	for _, a := range []string{"100.80.0.1/16", "fd80::1/48"} {
		hosttest.Address(t, "aether0", a)
	}
	for _, a := range []string{"10.77.0.1/24", "fd77::1/64", "192.0.2.1/24"} {
		hosttest.Address(t, "lan0", a)
	}
	link, err := netlink.LinkByName("aether0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMTU(link, 1400); err != nil {
		t.Fatal(err)
	}
	return tunnel, lan
}

func forward(t *testing.T) {
	t.Helper()
	for _, key := range []string{"net/ipv4/conf/all/forwarding", "net/ipv6/conf/all/forwarding"} {
		hosttest.Sysctl(t, key, "1")
	}
}

func TestSetAndUndoLeaveTheRulesetAsItWas(t *testing.T) {
	hosttest.Enter(t)
	foreignTable(t)
	before := hosttest.Listing(t)
	d := one(t)
	d.set(goodPlan())
	during := hosttest.Listing(t)
	if during == before {
		t.Fatal("nothing was set")
	}
	d.set(goodPlan())
	hosttest.Same(t, during, hosttest.Listing(t), "second Set")
	changed := goodPlan()
	changed.Granted, changed.Ports = nil, []uint16{1, 2, 3}
	d.set(changed)
	table, err := readTable(kernelConn(t), changed.Table)
	if err != nil || !has(t, table, changed) || has(t, table, goodPlan()) {
		t.Errorf("after a changed plan: %+v, %v", table, err)
	}
	if n := len(d.j.Pending()); n != 1 {
		t.Errorf("%d records", n)
	}
	d.mustRestore(before, "undone")
}

func has(t *testing.T, table *ourTable, p Plan) bool {
	t.Helper()
	same, err := table.has(kernelConn(t), p.Canonical())
	if err != nil {
		t.Fatal(err)
	}
	return same
}

func kernelConn(t *testing.T) *nftables.Conn {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// foreignTable makes a table that has nothing to do with us.
func foreignTable(t *testing.T) {
	t.Helper()
	conn := kernelConn(t)
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "theirs"})
	chain := conn.AddChain(&nftables.Chain{Name: "c", Table: table})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: drop()})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestCrashAroundTheRecord(t *testing.T) {
	for _, recorded := range []bool{false, true} {
		hosttest.Enter(t)
		before := hosttest.Listing(t)
		d := one(t)
		d.m.cfg.Journal = &journaltest.Failing{Journal: d.j, FailAt: 1, After: recorded}
		if err := d.m.Set(goodPlan()); !errors.Is(err, journaltest.ErrCrash) {
			t.Fatalf("Set: %v", err)
		}
		hosttest.Same(t, before, hosttest.Listing(t), "the host was changed before the record was on disk")
		d.mustRestore(before, "undone")
	}
}

func TestRulesOfOthersInOurTableAreLeftAndReported(t *testing.T) {
	hosttest.Enter(t)
	d := one(t)
	p := goodPlan()
	d.set(p)
	conn := kernelConn(t)
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: p.Table}
	conn.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: chainSource}, Exprs: drop()})
	conn.AddChain(&nftables.Chain{Name: "theirs", Table: table})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	changed := p
	changed.Mark++
	d.set(changed)
	left := d.undo()
	if len(left) != 1 || !strings.Contains(left[0].Thing, p.Table) ||
		!strings.Contains(left[0].Found, "1 rules, 1 chains") {
		t.Errorf("left %v", left)
	}
	now, err := readTable(conn, p.Table)
	if err != nil {
		t.Fatal(err)
	}
	if len(now.ours) != 0 || len(now.foreign) != 1 || fmt.Sprint(now.chains) != "[source theirs]" {
		t.Errorf("left in the kernel: %+v", now)
	}
}

func TestSetRepairsElements(t *testing.T) {
	hosttest.Enter(t)
	d := one(t)
	p := goodPlan()
	p.Granted = prefixes("0.0.0.0/0", "10.0.0.0/8", "fd00::/8", "fe00::/7", "ff00::/8")
	d.set(p)
	during := hosttest.Listing(t)
	conn := kernelConn(t)
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: p.Table}
	conn.FlushSet(&nftables.Set{Table: table, Name: "granted4"})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	now, err := readTable(conn, p.Table)
	if err != nil || has(t, now, p) {
		t.Fatalf("a flushed set is not noticed: %v", err)
	}
	d.set(p)
	if now, err = readTable(conn, p.Table); err != nil || !has(t, now, p) {
		t.Errorf("not repaired: %v", err)
	}
	listing := hosttest.Listing(t)
	d.set(p)
	hosttest.Same(t, listing, hosttest.Listing(t), "Set after the repair")
	if listing == during {
		t.Error("rules were not replaced")
	}
}

func TestTableRemovedByOthers(t *testing.T) {
	hosttest.Enter(t)
	before := hosttest.Listing(t)
	d := one(t)
	d.set(goodPlan())
	conn := kernelConn(t)
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	d.set(goodPlan())
	now, err := readTable(conn, goodPlan().Table)
	if err != nil || !has(t, now, goodPlan()) {
		t.Errorf("not repaired: %v", err)
	}
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	d.mustRestore(before, "undone")
}

func TestLargestPlanFits(t *testing.T) {
	hosttest.Enter(t)
	before := hosttest.Listing(t)
	d := one(t)
	p := goodPlan()
	p.Ports = nil
	for i := range maxPorts {
		p.Ports = append(p.Ports, uint16(1000+i))
	}
	p.TunnelPrefixes, p.OwnAddresses, p.Granted = nil, nil, nil
	for i := range maxPlanPrefixes - 2 {
		addr := netip.AddrFrom16([16]byte{0xfd, 0, byte(i >> 8), byte(i)})
		p.Granted = append(p.Granted, netip.PrefixFrom(addr, 63))
	}
	p.TunnelPrefixes = prefixes("fd80::/48", "100.80.0.0/16")
	d.set(p)
	d.set(p)
	for i := range p.Granted {
		p.Granted[i] = netip.PrefixFrom(p.Granted[i].Addr(), 62)
	}
	d.set(p)
	now, err := readTable(kernelConn(t), p.Table)
	if err != nil || !has(t, now, p) {
		t.Errorf("not there: %v", err)
	}
	d.mustRestore(before, "undone")
}

func TestMissingKernelSupportNamesTheRemedy(t *testing.T) {
	for _, test := range []struct {
		classify func(error) error
		errno    unix.Errno
	}{
		{missingTables, unix.EINVAL}, {missingTables, unix.EPROTONOSUPPORT}, {missingExpression, unix.ENOENT},
	} {
		var found *MissingError
		err := test.classify(fmt.Errorf("flush: %w", test.errno))
		if !errors.As(err, &found) || !strings.Contains(found.Error(), "modprobe") || !errors.Is(err, test.errno) {
			t.Errorf("%v: %v", test.errno, err)
		}
		if err := test.classify(unix.EPERM); !errors.Is(err, unix.EPERM) || errors.As(err, &found) {
			t.Errorf("EPERM: %v", err)
		}
	}
}

func TestOnePlanPerManager(t *testing.T) {
	hosttest.Enter(t)
	d := one(t)
	d.set(goodPlan())
	other := goodPlan()
	other.Table = TableName("/elsewhere")
	if err := d.m.Set(other); !errors.Is(err, ErrPlan) {
		t.Errorf("second table: %v", err)
	}
}

// TestMSSIsClampedBothWays forwards SYN and SYN-ACK through the host and reads the MSS on the other side.
func TestMSSIsClampedBothWays(t *testing.T) {
	tunnel, lan := router(t)
	forward(t)
	d := one(t)
	p := goodPlan()
	p.Granted = nil
	d.set(p)
	const syn, synAck, finish = 0x02, 0x12, 0x11
	tests := []struct {
		inner, outer netip.AddrPort
		want         uint16
	}{
		{ap("100.80.0.9:40000"), ap("10.77.0.5:80"), 1360},
		{ap("[fd80::9]:40000"), ap("[fd77::5]:80"), 1340},
	}
	for _, test := range tests {
		inject(t, tunnel, synPacket(test.inner, test.outer, syn, 1460))
		if got := next(t, lan, unix.IPPROTO_TCP, 80); got.mss() != test.want || got.src != test.inner {
			t.Errorf("out of the tunnel: mss %d from %v, want %d", got.mss(), got.src, test.want)
		}
		inject(t, lan, synPacket(test.outer, test.inner, synAck, 1460))
		if got := next(t, tunnel, unix.IPPROTO_TCP, 40000); got.mss() != test.want {
			t.Errorf("into the tunnel: mss %d, want %d", got.mss(), test.want)
		}
		inject(t, lan, synPacket(test.outer, test.inner, synAck, 500))
		if got := next(t, tunnel, unix.IPPROTO_TCP, 40000); got.mss() != 500 {
			t.Errorf("a small mss became %d", got.mss())
		}
		inject(t, lan, synPacket(test.outer, test.inner, finish, 1460))
		if got := next(t, tunnel, unix.IPPROTO_TCP, 40000); got.mss() != 1460 {
			t.Errorf("a segment without SYN was changed to %d", got.mss())
		}
	}
}

// TestMasqueradeOnlyTowardGrantedPrefixes: tunnel sources get the LAN interface's address toward granted
// prefixes, and keep theirs toward others; answers find their way back.
func TestMasqueradeOnlyTowardGrantedPrefixes(t *testing.T) {
	tunnel, lan := router(t)
	forward(t)
	hosttest.Address(t, "lan0", "10.99.0.1/24")
	hosttest.Address(t, "lan0", "fd99::1/64")
	d := one(t)
	d.set(goodPlan())
	tests := []struct{ inner, granted, other, masked string }{
		{"100.80.0.9:4000", "10.77.0.5:53", "10.99.0.5:54", "10.77.0.1"},
		{"[fd80::9]:4000", "[fd77::5]:53", "[fd99::5]:54", "fd77::1"},
	}
	for _, test := range tests {
		inject(t, tunnel, udpPacket(ap(test.inner), ap(test.granted), "query"))
		out := next(t, lan, unix.IPPROTO_UDP, 53)
		if out.src.Addr().String() != test.masked || string(out.transport[8:]) != "query" {
			t.Errorf("toward a granted prefix: from %v", out.src)
		}
		inject(t, lan, udpPacket(ap(test.granted), out.src, "answer"))
		if in := next(t, tunnel, unix.IPPROTO_UDP, 4000); in.dst != ap(test.inner) || in.src != ap(test.granted) {
			t.Errorf("answer: %v to %v", in.src, in.dst)
		}
		inject(t, tunnel, udpPacket(ap(test.inner), ap(test.other), "query"))
		if out := next(t, lan, unix.IPPROTO_UDP, 54); out.src != ap(test.inner) {
			t.Errorf("toward another prefix: from %v", out.src)
		}
	}
}

// TestShield sends what an attacker on the LAN would, then a proper datagram; only the last may arrive.
// Without the table all of them do, which shows that the table is what stops them.
func TestShield(t *testing.T) {
	for _, shielded := range []bool{true, false} {
		tunnel, lan := router(t)
		if shielded {
			one(t).set(goodPlan())
		}
		for _, family := range []struct{ any, own, lan, host, member string }{
			{"0.0.0.0", "100.80.0.1", "10.77.0.1", "10.77.0.5", "100.80.0.9"},
			{"[::]", "[fd80::1]", "[fd77::1]", "[fd77::5]", "[fd80::9]"},
		} {
			fd := listen(t, ap(family.any+":7000"))
			inject(t, lan, udpPacket(ap(family.host+":1"), ap(family.own+":7000"), "to the tunnel address"))
			inject(t, lan, udpPacket(ap(family.member+":1"), ap(family.lan+":7000"), "from a tunnel address"))
			inject(t, lan, udpPacket(ap(family.host+":1"), ap(family.lan+":7000"), "proper"))
			inject(t, tunnel, udpPacket(ap(family.member+":1"), ap(family.own+":7000"), "through the tunnel"))
			want := []string{"proper", "through the tunnel"}
			if !shielded {
				want = append([]string{"to the tunnel address", "from a tunnel address"}, want...)
			}
			for _, w := range want {
				if got := receive(t, fd); got != w {
					t.Errorf("shielded %v: received %q, want %q", shielded, got, w)
				}
			}
		}
	}
}

// TestMarkPassesStrictReversePathFilter: the tunnel takes the whole address space and rp_filter is strict, so
// a peer's answer to our socket is only accepted because it gets our mark.
func TestMarkPassesStrictReversePathFilter(t *testing.T) {
	for _, marked := range []bool{true, false} {
		_, lan := router(t)
		hosttest.Route(t, "0.0.0.0/0", "lan0", "192.0.2.254")
		hosttest.Sysctl(t, "net/ipv4/conf/all/rp_filter", "1")
		d := one(t)
		p := goodPlan()
		routes := route.New(route.Config{Journal: d.j, Sysctls: d.h})
		_, err := routes.Set(route.Plan{
			Device: "aether0", MTU: 1400, Routes: []route.Route{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}},
			Selectors: route.Selectors{Table: 5000, Mark: p.Mark, Priority: 1000},
		})
		if err != nil {
			t.Fatal(err)
		}
		if !marked {
			p.Ports = []uint16{9}
		}
		d.set(p)
		ours, other := listen(t, ap("0.0.0.0:4443")), listen(t, ap("0.0.0.0:4444"))
		inject(t, lan, udpPacket(ap("198.51.100.7:443"), ap("192.0.2.1:4444"), "somebody else's"))
		inject(t, lan, udpPacket(ap("198.51.100.7:443"), ap("192.0.2.1:4443"), "peer"))
		// What comes from the LAN itself passes the filter in any case and comes after the others.
		hosttest.Sysctl(t, "net/ipv4/conf/all/rp_filter", "0")
		inject(t, lan, udpPacket(ap("192.0.2.9:1"), ap("192.0.2.1:4444"), "last"))
		inject(t, lan, udpPacket(ap("192.0.2.9:1"), ap("192.0.2.1:4443"), "last"))
		if got := receive(t, other); got != "last" {
			t.Errorf("other port received %q", got)
		}
		want := "last"
		if marked {
			want = "peer"
		}
		if got := receive(t, ours); got != want {
			t.Errorf("marked %v: our port received %q, want %q", marked, got, want)
		}
		d.undo()
	}
}

func TestCommentOf(t *testing.T) {
	tests := map[string][]byte{
		"":      {0, 200, 'x'},
		"hello": userData("hello"),
		"after": append([]byte{1, 2, 9, 9}, userData("after")...),
	}
	for want, data := range tests {
		if got := commentOf(data); got != want {
			t.Errorf("%x: %q, want %q", data, got, want)
		}
	}
	if commentOf(nil) != "" || commentOf([]byte{0}) != "" {
		t.Error("short data has a comment")
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 8, 0, 1, 0, 'a', 'b', 'c', 0})
	f.Add(binary.NativeEndian.AppendUint32([]byte{1, 0, 0, 0}, 0x00070008))
	for _, r := range goodPlan().rules() {
		var exprs []byte
		for _, e := range r.exprs {
			one, err := expr.Marshal(byte(nftables.TableFamilyINet), e)
			if err != nil {
				f.Fatal(err)
			}
			exprs = append(exprs, attribute(unix.NFTA_LIST_ELEM, one)...)
		}
		f.Add(append([]byte{1, 0, 0, 0}, attribute(unix.NFTA_RULE_EXPRESSIONS, exprs)...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRule(data)
		if err != nil {
			return
		}
		w := walk{set: &ruleset{}, probe: probe{in: "a", tun: "a"}, stepsLeft: maxSteps}
		if matched, _, _ := w.rule(&r); matched == matchYes && len(r.exprs) > 0 && r.exprs[0].name == "nonsense" {
			t.Fatal("an unknown expression matches for certain")
		}
	})
}

func attribute(kind uint16, value []byte) []byte {
	out := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	out = append(binary.NativeEndian.AppendUint16(out, kind), value...)
	return append(out, make([]byte, (4-len(out)%4)%4)...)
}

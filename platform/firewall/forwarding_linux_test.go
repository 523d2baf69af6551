package firewall

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
	"github.com/aethertunnel/aethertunnel/platform/journal/journaltest"
	"github.com/aethertunnel/aethertunnel/platform/sysctl"
)

func goodForwarding() Forwarding {
	return Forwarding{Device: "aether0", Mark: 0x41000001, Granted: prefixes("10.77.0.0/24", "fd77::/64")}
}

func (d *daemon) forward(f Forwarding) []Notice {
	d.t.Helper()
	notices, err := d.m.SetForwarding(f)
	if err != nil {
		d.t.Fatal(err)
	}
	return notices
}

// TestForwardingIsSwitchedOnOnlyWhenGranted sends packets of both families both ways through the host,
// without, with and again without a grant.
func TestForwardingIsSwitchedOnOnlyWhenGranted(t *testing.T) {
	tunnel, lan := router(t)
	hosttest.TUN(t, "other0")
	hosttest.Up(t, "other0")
	hosttest.Address(t, "other0", "10.99.0.1/24")
	before := hosttest.Listing(t)
	d := one(t)
	passes := func(want bool) {
		t.Helper()
		for _, pair := range []struct{ inner, outer string }{
			{"100.80.0.9:4000", "10.77.0.5:53"}, {"[fd80::9]:4000", "[fd77::5]:53"},
		} {
			inject(t, tunnel, udpPacket(ap(pair.inner), ap(pair.outer), "forwarded"))
			inject(t, lan, udpPacket(ap(pair.outer), ap(pair.inner), "forwarded"))
			// What the host itself sends comes after it.
			for _, local := range []string{pair.outer, pair.inner} {
				sendLocal(t, local, "local")
			}
			if got := string(next(t, lan, unix.IPPROTO_UDP, 53).transport[8:]); (got == "forwarded") != want {
				t.Errorf("from the tunnel to %s: %q, forwarding %v", pair.outer, got, want)
			} else if want {
				next(t, lan, unix.IPPROTO_UDP, 53)
			}
			if got := string(next(t, tunnel, unix.IPPROTO_UDP, 4000).transport[8:]); (got == "forwarded") != want {
				t.Errorf("from the LAN to %s: %q, forwarding %v", pair.inner, got, want)
			} else if want {
				next(t, tunnel, unix.IPPROTO_UDP, 4000)
			}
		}
	}
	passes(false)
	d.forward(Forwarding{Device: "aether0"})
	hosttest.Same(t, before, hosttest.Listing(t), "nothing granted")
	if notices := d.forward(goodForwarding()); len(notices) > 0 {
		t.Errorf("notices %v", notices)
	}
	passes(true)
	for _, key := range []string{
		"net/ipv4/ip_forward", "net/ipv4/conf/other0/forwarding", "net/ipv6/conf/other0/forwarding",
	} {
		if got := hosttest.ReadSysctl(t, key); got != "0" {
			t.Errorf("%s is %s", key, got)
		}
	}
	during := hosttest.Listing(t)
	pending := len(d.j.Pending())
	d.forward(goodForwarding())
	hosttest.Same(t, during, hosttest.Listing(t), "second SetForwarding")
	if n := len(d.j.Pending()); n != pending {
		t.Errorf("second SetForwarding recorded %d changes", n-pending)
	}
	d.forward(Forwarding{Device: "aether0"})
	hosttest.Same(t, before, hosttest.Listing(t), "grant withdrawn")
	if n := len(d.j.Pending()); n != 0 {
		t.Errorf("%d records pending after the grant was withdrawn", n)
	}
	passes(false)
	d.forward(goodForwarding())
	d.mustRestore(before, "undone")
}

func sendLocal(t *testing.T, to, payload string) {
	t.Helper()
	target := ap(to)
	any4, any6 := ap("0.0.0.0:0"), ap("[::]:0")
	from := any6
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(target.Port()), Addr: target.Addr().As16()}
	if target.Addr().Is4() {
		from, sa = any4, &unix.SockaddrInet4{Port: int(target.Port()), Addr: target.Addr().As4()}
	}
	if err := unix.Sendto(listen(t, from), []byte(payload), 0, sa); err != nil {
		t.Fatal(err)
	}
}

// advertisedUplink makes an uplink that lives on router advertisements.
func advertisedUplink(t *testing.T) {
	t.Helper()
	hosttest.Wired(t, "eth0")
	hosttest.Address(t, "eth0", "2001:db8::2/64")
	ra := &netlink.Route{
		Dst: hosttest.IPNet("::/0"), LinkIndex: hosttest.Index(t, "eth0"), Protocol: unix.RTPROT_RA,
		Gw: hosttest.IPNet("2001:db8::1/64").IP,
	}
	if err := netlink.RouteAdd(ra); err != nil {
		t.Fatal(err)
	}
}

// TestOlderKernelsForwardIPv6ForAll plans as for a kernel without force_forwarding, with an uplink that lives
// on router advertisements, and restores every interface exactly.
func TestOlderKernelsForwardIPv6ForAll(t *testing.T) {
	router(t)
	advertisedUplink(t)
	hosttest.Sysctl(t, "net/ipv6/conf/eth0-p/forwarding", "1")
	before := hosttest.Listing(t)
	f := goodForwarding()
	host, err := inspect(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(host.RouterUplinks, []string{"eth0"}) {
		t.Errorf("uplinks %v", host.RouterUplinks)
	}
	host.ForceForwarding = false
	d := one(t)
	for _, s := range f.Settings(host) {
		if err := d.h.Hold(s); err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range map[string]string{
		"net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/eth0/accept_ra": "2", "net/ipv6/conf/lan0/accept_ra": "1",
	} {
		if got := hosttest.ReadSysctl(t, key); got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
	d.mustRestore(before, "undone")
}

// TestUplinkKeepsAcceptRA: the second plan finds accept_ra at the 2 that we hold and must not release it.
func TestUplinkKeepsAcceptRA(t *testing.T) {
	router(t)
	advertisedUplink(t)
	before := hosttest.Listing(t)
	d := one(t)
	d.forward(goodForwarding())
	f := goodForwarding()
	f.Granted = append(f.Granted, prefixes("192.0.2.0/24", "::/0")...)
	d.forward(f)
	if got := hosttest.ReadSysctl(t, "net/ipv6/conf/eth0/accept_ra"); got != "2" {
		t.Errorf("accept_ra %s", got)
	}
	d.mustRestore(before, "undone")
}

func TestInspectFindsTheWayToEachPrefix(t *testing.T) {
	router(t)
	hosttest.Wired(t, "eth0", "eth1", "eth2")
	hosttest.Address(t, "eth0", "203.0.113.2/24")
	hosttest.Address(t, "eth1", "10.1.0.1/16")
	hosttest.Address(t, "eth2", "10.2.0.1/16")
	hosttest.Route(t, "172.16.0.0/12", "eth1", "10.1.0.9")
	f := Forwarding{Device: "aether0", Mark: 1}
	reach := func(prefix string) string {
		t.Helper()
		f.Granted = prefixes(prefix)
		host, err := inspect(f, nil)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(host.Reach4, host.Reach6, host.Unreached)
	}
	tests := map[string]string{
		"10.1.0.0/16":   "[eth1] [] []",
		"10.0.0.0/8":    "[eth1 eth2 lan0] [] []",
		"172.16.5.0/24": "[eth1] [] []",
		"10.1.7.7/32":   "[eth1] [] []",
		"8.8.8.0/24":    "[] [] [8.8.8.0/24]",
		"0.0.0.0/0":     "[] [] [0.0.0.0/0]",
		"fd77::/64":     "[] [lan0] []",
		"fd55::/64":     "[] [] [fd55::/64]",
		"100.80.0.0/16": "[] [] [100.80.0.0/16]", // only through our own interface
	}
	for prefix, want := range tests {
		if got := reach(prefix); got != want {
			t.Errorf("%s: %s, want %s", prefix, got, want)
		}
	}
	hosttest.Route(t, "0.0.0.0/0", "eth0", "203.0.113.1")
	for prefix, want := range map[string]string{"0.0.0.0/0": "[eth0] [] []", "8.8.8.0/24": "[eth0] [] []"} {
		if got := reach(prefix); got != want {
			t.Errorf("with a default route, %s: %s, want %s", prefix, got, want)
		}
	}
	d := one(t)
	f.Granted = prefixes("fd55::/64")
	if notices := d.forward(f); len(notices) != 1 || notices[0].Kind != NoRoute {
		t.Errorf("notices %v", notices)
	}
}

// TestTwoGatewaysShareForwarding: both forward to the same LAN; the first one out leaves it on for the other.
func TestTwoGatewaysShareForwarding(t *testing.T) {
	for _, firstOut := range []int{0, 1} {
		router(t)
		before := hosttest.Listing(t)
		dir := t.TempDir()
		both := []*daemon{start(t, dir, filepath.Join(dir, "a")), start(t, dir, filepath.Join(dir, "b"))}
		for i, d := range both {
			p := goodPlan()
			p.Table = TableName(fmt.Sprint(i))
			d.set(p)
			d.forward(goodForwarding())
		}
		both[firstOut].undo()
		if got := hosttest.ReadSysctl(t, sysctl.InterfaceKey("ipv4", "lan0", "forwarding")); got != "1" {
			t.Errorf("forwarding %s while one gateway runs", got)
		}
		both[1-firstOut].mustRestore(before, fmt.Sprintf("gateway %d out first", firstOut))
	}
}

// TestCrashAtEveryJournalCall goes through table, forwarding on and forwarding off, dies at the n-th call of
// the journal for every n, and undoes at the next start.
func TestCrashAtEveryJournalCall(t *testing.T) {
	router(t)
	before := hosttest.Listing(t)
	dir := t.TempDir()
	state := filepath.Join(dir, "a")
	journaltest.EachCall(t, 7, func(f *journaltest.Failing, what string) error {
		d := start(t, dir, state)
		f.Journal = d.j
		h, err := sysctl.New(sysctl.Config{Dir: dir, StateDir: state, Scope: d.j.Scope(), Journal: f})
		if err != nil {
			t.Fatal(err)
		}
		m := New(Config{Journal: f, Sysctls: h})
		err = m.Set(goodPlan())
		if err == nil {
			_, err = m.SetForwarding(goodForwarding())
		}
		if err == nil {
			_, err = m.SetForwarding(Forwarding{Device: "aether0"})
		}
		if err := d.j.Close(); err != nil {
			t.Fatal(err)
		}
		start(t, dir, state).mustRestore(before, what)
		return err
	})
}

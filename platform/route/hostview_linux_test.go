package route

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
)

func TestHostView(t *testing.T) {
	hosttest.Enter(t)
	hosttest.Wired(t, "eth0", "eth1", "aether0")
	hosttest.Link(t, "down0", "down0-p")
	for device, list := range map[string][]string{
		"eth0": {"192.168.7.2/24", "2001:db8:7::2/64", "fd07::2/64"}, "eth1": {"100.70.0.1/16"},
		"aether0": {"100.80.0.1/16"}, "down0": {"172.20.0.1/16"},
	} {
		for _, a := range list {
			hosttest.Address(t, device, a)
		}
	}
	hosttest.Route(t, "0.0.0.0/0", "eth0", "192.168.7.1")
	hosttest.Route(t, "128.0.0.0/1", "eth0", "192.168.7.1")
	hosttest.Route(t, "10.9.0.0/16", "eth0", "192.168.7.1")
	other := &netlink.Route{
		Dst: hosttest.IPNet("10.66.0.0/16"), LinkIndex: hosttest.Index(t, "eth1"), Table: 777,
		Scope: unix.RT_SCOPE_LINK,
	}
	if err := netlink.RouteAdd(other); err != nil {
		t.Fatal(err)
	}

	known, err := KnownPrefixes()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range prefixes("192.168.7.0/24", "2001:db8:7::/64", "fd07::/64", "100.70.0.0/16", "10.9.0.0/16",
		"10.66.0.0/16", "172.20.0.0/16", "127.0.0.0/8") {
		if !slices.Contains(known, want) {
			t.Errorf("not known: %v", want)
		}
	}
	if slices.ContainsFunc(known, func(p netip.Prefix) bool { return p.Bits() < 8 }) {
		t.Errorf("known: %v", known)
	}

	conflicts, err := Connected(prefixes("100.80.0.0/16", "100.70.128.0/17", "10.9.0.0/16", "10.0.0.0/8", "fd07::/48",
		"172.20.5.0/24", "169.254.0.0/16"), "aether0")
	if err != nil {
		t.Fatal(err)
	}
	want := []Conflict{
		{netip.MustParsePrefix("100.70.128.0/17"), netip.MustParsePrefix("100.70.0.0/16"), "eth1"},
		{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.66.0.0/16"), "eth1"},
		{netip.MustParsePrefix("fd07::/48"), netip.MustParsePrefix("fd07::/64"), "eth0"},
		{netip.MustParsePrefix("172.20.5.0/24"), netip.MustParsePrefix("172.20.0.0/16"), "down0"},
	}
	if !slices.Equal(conflicts, want) {
		t.Errorf("conflicts %v, want %v", conflicts, want)
	}
}

func TestUsableAddresses(t *testing.T) {
	hosttest.Enter(t)
	hosttest.Wired(t, "eth0", "eth1", "aether0")
	hosttest.Link(t, "down0", "down0-p")
	hosttest.Address(t, "eth1", "10.1.0.1/24")
	hosttest.Address(t, "eth0", "192.168.7.2/24")
	hosttest.Address(t, "eth0", "2001:db8:7::2/64")
	hosttest.Address(t, "aether0", "100.80.0.1/16")
	hosttest.Address(t, "down0", "172.20.0.1/16")
	deprecated := &netlink.Addr{IPNet: hosttest.IPNet("2001:db8:7::3/64"), ValidLft: 600, Flags: unix.IFA_F_NODAD}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, deprecated); err != nil {
		t.Fatal(err)
	}
	hosttest.Route(t, "0.0.0.0/0", "eth0", "192.168.7.1")
	got, err := UsableAddresses("aether0")
	if err != nil {
		t.Fatal(err)
	}
	eth0, eth1 := hosttest.Index(t, "eth0"), hosttest.Index(t, "eth1")
	want := []HostAddress{
		{Addr: netip.MustParseAddr("192.168.7.2"), Kind: Private, Device: "eth0", Index: eth0, Default: true},
		{Addr: netip.MustParseAddr("2001:db8:7::2"), Kind: Global, Device: "eth0", Index: eth0, Default: true},
		{
			Addr: netip.MustParseAddr("2001:db8:7::3"), Kind: Global, Device: "eth0", Index: eth0, Default: true,
			Deprecated: true,
		},
		{Addr: netip.MustParseAddr("10.1.0.1"), Kind: Private, Device: "eth1", Index: eth1},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

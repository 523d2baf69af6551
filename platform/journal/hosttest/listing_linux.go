package hosttest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attributeTypes masks the flags off a netlink attribute's type.
const attributeTypes = 0x3fff

// source is one kind of netlink objects to list.
type source struct {
	name     string
	protocol int
	request  int
	answer   uint16
	header   int
	family   int
	// volatile are attributes that change by themselves: counters, ages, times of life.
	volatile []uint16
}

func sources() []source {
	const nft = unix.NFNL_SUBSYS_NFTABLES << 8
	link := []uint16{
		unix.IFLA_STATS, unix.IFLA_STATS64, unix.IFLA_CARRIER_CHANGES, unix.IFLA_CARRIER_UP_COUNT,
		unix.IFLA_CARRIER_DOWN_COUNT, unix.IFLA_AF_SPEC,
	}
	list := []source{{
		name: "link", protocol: unix.NETLINK_ROUTE, request: unix.RTM_GETLINK, answer: unix.RTM_NEWLINK,
		header: unix.SizeofIfInfomsg, volatile: link,
	}}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list = append(list,
			source{
				name: "address", protocol: unix.NETLINK_ROUTE, request: unix.RTM_GETADDR, answer: unix.RTM_NEWADDR,
				header: unix.SizeofIfAddrmsg, family: family, volatile: []uint16{unix.IFA_CACHEINFO},
			},
			source{
				name: "route", protocol: unix.NETLINK_ROUTE, request: unix.RTM_GETROUTE, answer: unix.RTM_NEWROUTE,
				header: unix.SizeofRtMsg, family: family, volatile: []uint16{unix.RTA_CACHEINFO},
			},
			source{
				name: "rule", protocol: unix.NETLINK_ROUTE, request: unix.RTM_GETRULE, answer: unix.RTM_NEWRULE,
				header: unix.SizeofRtMsg, family: family,
			})
	}
	for name, message := range map[string]int{
		"nft table": unix.NFT_MSG_NEWTABLE, "nft chain": unix.NFT_MSG_NEWCHAIN, "nft rule": unix.NFT_MSG_NEWRULE,
		"nft set": unix.NFT_MSG_NEWSET, "nft object": unix.NFT_MSG_NEWOBJ,
	} {
		list = append(list, source{
			name: name, protocol: unix.NETLINK_NETFILTER, request: nft | (message + 1), answer: uint16(nft | message),
			header: nl.SizeofNfgenmsg,
		})
	}
	return list
}

// settled waits until the kernel has told itself about what was done: the operational state of links follows
// their peers' some time later, and so does the local route of an IPv6 address.
func settled(t *testing.T) {
	t.Helper()
	links, routes := make(chan netlink.LinkUpdate, 1024), make(chan netlink.RouteUpdate, 1024)
	done := make(chan struct{})
	defer close(done)
	if err := errors.Join(netlink.LinkSubscribe(links, done), netlink.RouteSubscribe(routes, done)); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(patience)
	for {
		unsettled := append(unsettledLinks(t), unsettledAddresses(t)...)
		if len(unsettled) == 0 {
			return
		}
		select {
		case <-links:
		case <-routes:
		case <-deadline:
			t.Fatalf("the network does not settle: %v", unsettled)
		}
	}
}

// unsettledAddresses lists IPv6 addresses of interfaces that are up without their route in the local table.
func unsettledAddresses(t *testing.T) []string {
	t.Helper()
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V6)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Fatal(err)
	}
	local := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, local, netlink.RT_FILTER_TABLE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Fatal(err)
	}
	var out []string
	for _, a := range addrs {
		link, err := netlink.LinkByIndex(a.LinkIndex)
		if err != nil || link.Attrs().RawFlags&unix.IFF_UP == 0 {
			continue
		}
		if !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.IP.Equal(a.IP) }) {
			out = append(out, fmt.Sprintf("%v has no local route", a.IP))
		}
	}
	return out
}

func unsettledLinks(t *testing.T) []string {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Fatal(err)
	}
	up := map[int]bool{}
	for _, l := range links {
		up[l.Attrs().Index] = l.Attrs().Flags&net.FlagUp != 0
	}
	var out []string
	for _, l := range links {
		a := l.Attrs()
		want := netlink.LinkOperState(netlink.OperUp)
		switch {
		case l.Type() != "veth":
			continue
		case !up[a.Index]:
			want = netlink.OperDown
		case !up[a.ParentIndex]:
			want = netlink.OperLowerLayerDown
		}
		if a.OperState != want {
			out = append(out, fmt.Sprintf("%s is %v, not %v", a.Name, a.OperState, want))
		}
	}
	return out
}

// Listing returns everything that a daemon may change in the network namespace, one line each, sorted: links,
// addresses, rules, routes of all tables, the nftables ruleset, all as the kernel's own bytes, and every
// parameter of the IPv4 and IPv6 configuration of all interfaces.
func Listing(t *testing.T) string {
	t.Helper()
	settled(t)
	var lines []string
	for _, s := range sources() {
		lines = append(lines, s.list(t)...)
	}
	for _, pattern := range []string{"ipv4/conf/*/*", "ipv6/conf/*/*", "ipv4/ip_forward"} {
		lines = append(lines, parameters(t, pattern)...)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func (s source) list(t *testing.T) []string {
	t.Helper()
	for range 16 {
		req := nl.NewNetlinkRequest(s.request, unix.NLM_F_DUMP)
		if s.protocol == unix.NETLINK_NETFILTER {
			req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
		} else {
			req.AddData(nl.NewIfInfomsg(s.family))
		}
		messages, err := req.Execute(s.protocol, s.answer)
		if errors.Is(err, nl.ErrDumpInterrupted) {
			continue
		}
		if err != nil {
			t.Fatalf("list %s: %v", s.name, err)
		}
		var lines []string
		for _, m := range messages {
			lines = append(lines, s.line(t, m))
		}
		return lines
	}
	t.Fatalf("list %s: interrupted again and again", s.name)
	return nil
}

func (s source) line(t *testing.T, message []byte) string {
	t.Helper()
	var b strings.Builder
	if s.protocol == unix.NETLINK_NETFILTER {
		message[2], message[3] = 0, 0 // the generation of the ruleset, which every change raises
	}
	fmt.Fprintf(&b, "%s %x", s.name, message[:s.header])
	attrs, err := nl.ParseRouteAttr(message[s.header:])
	if err != nil {
		t.Fatalf("list %s: %v", s.name, err)
	}
	for _, a := range attrs {
		if kind := a.Attr.Type & attributeTypes; !slices.Contains(s.volatile, kind) {
			fmt.Fprintf(&b, " %d=%x", kind, a.Value)
		}
	}
	return b.String()
}

func parameters(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/sys/net/" + pattern)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil && !os.IsPermission(err) && !errors.Is(err, unix.EIO) {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("sysctl %s %q", path, data))
	}
	return lines
}

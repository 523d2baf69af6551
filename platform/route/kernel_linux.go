package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	wholeMark = 0xffffffff
	flagUp    = unix.IFF_UP
	// dumpTries bounds how often a listing is repeated that the kernel says has changed underneath.
	dumpTries = 8
)

// routeSlot is what the kernel tells routes apart by.
type routeSlot struct {
	prefix netip.Prefix
	table  uint32
	metric uint32
}

func (s routeSlot) String() string {
	return fmt.Sprintf("%v table %d metric %d", s.prefix, s.table, s.metric)
}

type addressSlot struct {
	index  int
	prefix netip.Prefix
}

// kernel is the state of the namespace at one moment.
type kernel struct {
	links     map[int]*netlink.LinkAttrs
	addresses map[addressSlot]*netlink.Addr
	routes    map[routeSlot][]*netlink.Route
	rules     map[int][]netlink.Rule
}

func readKernel() (*kernel, error) {
	k := &kernel{
		links: map[int]*netlink.LinkAttrs{}, addresses: map[addressSlot]*netlink.Addr{},
		routes: map[routeSlot][]*netlink.Route{}, rules: map[int][]netlink.Rule{},
	}
	links, err := listAll(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		k.links[l.Attrs().Index] = l.Attrs()
	}
	addrs, err := listAll(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for i := range addrs {
		if prefix, ok := prefixOf(addrs[i].IPNet); ok {
			k.addresses[addressSlot{addrs[i].LinkIndex, prefix}] = &addrs[i]
		}
	}
	if err := k.readRouting(); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *kernel) readRouting() error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := listRoutes(family)
		if err != nil {
			return err
		}
		for i := range routes {
			slot := routeSlot{
				prefix: destination(&routes[i]), table: uint32(routes[i].Table), metric: uint32(routes[i].Priority),
			}
			k.routes[slot] = append(k.routes[slot], &routes[i])
		}
		rules, err := listAll(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		if err != nil && !noFamily(err) {
			return fmt.Errorf("list rules: %w", err)
		}
		k.rules[family] = rules
	}
	return nil
}

// listRoutes lists the routes of all tables.
func listRoutes(family int) ([]netlink.Route, error) {
	routes, err := listAll(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil && !noFamily(err) {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return routes, nil
}

// listAll repeats a listing that was interrupted by a change.
func listAll[T any](list func() ([]T, error)) (out []T, err error) {
	for range dumpTries {
		out, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, err
}

// noFamily reports whether the kernel was built or booted without the address family.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// same reports whether an interface still is the one that was meant.
func (k *kernel) same(id deviceID) bool {
	a, ok := k.links[id.Index]
	return ok && a.Name == id.Device
}

func (k *kernel) linkValue(id deviceID, attr linkAttr) (int, bool) {
	if !k.same(id) {
		return 0, false
	}
	return linkAttrValue(k.links[id.Index], attr)
}

func (k *kernel) address(index int, prefix netip.Prefix) bool {
	_, ok := k.addresses[addressSlot{index, prefix}]
	return ok
}

func (k *kernel) find(device string) (deviceID, bool) {
	for index, a := range k.links {
		if a.Name == device {
			return deviceID{Device: device, Index: index}, true
		}
	}
	return deviceID{}, false
}

// gone drops the errors that say that what was to be removed is not there any more.
func gone(err error) error {
	for _, e := range []error{unix.ESRCH, unix.ENOENT, unix.EADDRNOTAVAIL, unix.ENODEV} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

func linkRef(index int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits), true
}

// destination returns the prefix of a route; the default route has none in the kernel's message.
func destination(r *netlink.Route) netip.Prefix {
	if p, ok := prefixOf(r.Dst); ok {
		return p
	}
	if r.Family == unix.AF_INET6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func describeRoute(r *netlink.Route) string {
	return fmt.Sprintf("%v type %d dev %d via %v protocol %d", destination(r), r.Type, r.LinkIndex, r.Gw, r.Protocol)
}

func describeRule(r *netlink.Rule) string {
	not := ""
	if r.Invert {
		not = "not "
	}
	return fmt.Sprintf("priority %d %sfwmark 0x%x lookup %d protocol %d", r.Priority, not, r.Mark, r.Table, r.Protocol)
}

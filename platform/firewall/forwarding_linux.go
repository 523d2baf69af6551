package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/sysctl"
)

const (
	conf6Dir   = "/proc/sys/net/ipv6/conf"
	routeTries = 8
)

// SetForwarding holds the kernel parameters that forwarding to the granted prefixes needs, and releases those
// that this Manager held for an earlier plan. Without granted prefixes it releases all. Errors: of the sysctl
// package and of netlink.
func (m *Manager) SetForwarding(f Forwarding) ([]Notice, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	host, err := inspect(f, m.held)
	if err != nil {
		return nil, fmt.Errorf("set forwarding: %w", err)
	}
	var notices []Notice
	for _, p := range host.Unreached {
		notices = append(notices, Notice{
			Kind: NoRoute, Detail: fmt.Sprintf("no route leads to %v, so nothing is forwarded to it", p),
		})
	}
	keep := map[string]bool{}
	for _, s := range f.Settings(host) {
		if err := m.cfg.Sysctls.Hold(s); err != nil {
			return notices, fmt.Errorf("set forwarding: %w", err)
		}
		keep[s.Key] = true
		if !slices.Contains(m.held, s.Key) {
			m.held = append(m.held, s.Key)
		}
	}
	more, err := m.releaseLocked(keep)
	return append(notices, more...), err
}

// releaseLocked gives up, last first, the keys that are not in keep.
func (m *Manager) releaseLocked(keep map[string]bool) ([]Notice, error) {
	var notices []Notice
	for i, key := range slices.Backward(m.held) {
		if keep[key] {
			continue
		}
		left, err := m.cfg.Sysctls.Release(key)
		for _, l := range left {
			notices = append(notices, Notice{Kind: LeftAsIs, Detail: l.String()})
		}
		if err != nil {
			return notices, fmt.Errorf("set forwarding: %w", err)
		}
		m.held = slices.Delete(m.held, i, i+1)
	}
	return notices, nil
}

// inspect reads from the host what planning the forwarding needs. held are the parameters that are ours already: an
// uplink whose accept_ra is held at 2 still needs it.
func inspect(f Forwarding, held []string) (Host, error) {
	var host Host
	if len(f.Granted) == 0 {
		return host, nil
	}
	r, err := readRoutes(f.Device)
	if err != nil {
		return host, err
	}
	for _, p := range f.Granted {
		devices, err := r.devices(p, f.Mark)
		if err != nil {
			return host, err
		}
		switch {
		case len(devices) == 0:
			host.Unreached = append(host.Unreached, p)
		case p.Addr().Is4():
			host.Reach4 = append(host.Reach4, devices...)
		default:
			host.Reach6 = append(host.Reach6, devices...)
		}
	}
	host.Reach4, host.Reach6 = sortedNames(host.Reach4), sortedNames(host.Reach6)
	if len(host.Reach6) == 0 {
		return host, nil
	}
	return host, host.inspectIPv6(r, held)
}

func (h *Host) inspectIPv6(r *routes, held []string) error {
	_, err := sysctl.Read(sysctl.InterfaceKey(familyIPv6, allDevices, "force_forwarding"))
	if err != nil && !errors.Is(err, sysctl.ErrNoKey) {
		return err
	}
	h.ForceForwarding = err == nil
	for _, name := range r.routerUplinks() {
		key := sysctl.InterfaceKey(familyIPv6, name, "accept_ra")
		value, err := sysctl.Read(key)
		if err != nil && !errors.Is(err, sysctl.ErrNoKey) {
			return err
		}
		if err == nil && (value == "1" || slices.Contains(held, key)) {
			h.RouterUplinks = append(h.RouterUplinks, name)
		}
	}
	entries, err := os.ReadDir(conf6Dir)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, e := range entries {
		if e.Name() != allDevices {
			h.Spread = append(h.Spread, sysctl.InterfaceKey(familyIPv6, e.Name(), "forwarding"))
		}
	}
	return nil
}

// routes is what is known of the host's routing.
type routes struct {
	own   string
	names map[int]string
	list  []netlink.Route
}

func readRoutes(own string) (*routes, error) {
	r := &routes{own: own, names: map[int]string{}}
	links, err := listAll(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if l.Attrs().RawFlags&unix.IFF_LOOPBACK == 0 {
			r.names[l.Attrs().Index] = l.Attrs().Name
		}
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := listAll(func() ([]netlink.Route, error) {
			all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
			return netlink.RouteListFiltered(family, all, netlink.RT_FILTER_TABLE)
		})
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		r.list = append(r.list, list...)
	}
	return r, nil
}

// listAll repeats a listing that was interrupted by a change.
func listAll[T any](list func() ([]T, error)) (out []T, err error) {
	for range routeTries {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, err
}

// devices returns the interfaces that packets for a granted prefix leave through: those of the routes inside
// it and of the one that covers it. For the default route only its own interfaces count; other networks have
// grants of their own.
func (r *routes) devices(p netip.Prefix, mark uint32) ([]string, error) {
	var out []string
	for i := range r.list {
		route := &r.list[i]
		destination, ok := destinationOf(route)
		if route.Type != unix.RTN_UNICAST || !ok || destination.Addr().Is4() != p.Addr().Is4() {
			continue
		}
		inside := destination.Bits() >= p.Bits() && p.Contains(destination.Addr())
		if inside && (p.Bits() > 0 || destination.Bits() == 0) {
			out = append(out, r.hops(route)...)
		}
	}
	if p.Bits() > 0 {
		covering, err := r.lookup(p, mark)
		if err != nil {
			return nil, err
		}
		out = append(out, covering...)
	}
	return sortedNames(out), nil
}

// lookup asks the kernel for the route to the first host of a prefix, as our own marked sockets would see it.
func (r *routes) lookup(p netip.Prefix, mark uint32) ([]string, error) {
	target := p.Addr()
	if p.Bits() < target.BitLen() {
		target = target.Next()
	}
	found, err := netlink.RouteGetWithOptions(target.AsSlice(), &netlink.RouteGetOptions{Mark: mark})
	for _, e := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, unix.EACCES, unix.EAGAIN} {
		if errors.Is(err, e) {
			return nil, nil // no route, or an unreachable, blackhole, prohibit or throw route
		}
	}
	if err != nil {
		return nil, fmt.Errorf("look up the route to %v: %w", target, err)
	}
	var out []string
	for i := range found {
		if found[i].Type == unix.RTN_UNICAST {
			out = append(out, r.hops(&found[i])...)
		}
	}
	return out, nil
}

// hops returns the names of a route's interfaces, without ours and the loopback.
func (r *routes) hops(route *netlink.Route) []string {
	indexes := []int{route.LinkIndex}
	if len(route.MultiPath) > 0 {
		indexes = nil
		for _, hop := range route.MultiPath {
			indexes = append(indexes, hop.LinkIndex)
		}
	}
	var out []string
	for _, index := range indexes {
		if name := r.names[index]; name != "" && name != r.own {
			out = append(out, name)
		}
	}
	return out
}

// routerUplinks returns the interfaces whose IPv6 default route the kernel took from a router advertisement.
func (r *routes) routerUplinks() []string {
	var out []string
	for i := range r.list {
		route := &r.list[i]
		destination, ok := destinationOf(route)
		if ok && destination.Bits() == 0 && destination.Addr().Is6() && route.Protocol == unix.RTPROT_RA {
			out = append(out, r.hops(route)...)
		}
	}
	return sortedNames(out)
}

func destinationOf(r *netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		if r.Family == unix.AF_INET6 {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits), ok
}

func sortedNames(in []string) []string {
	slices.Sort(in)
	return slices.Compact(in)
}

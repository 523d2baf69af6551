package route

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DefaultRouter returns the IPv4 router of the main table's best default route and the host's address towards
// it. ok is false when there is none, or when it is reached without an address of its own (point-to-point
// links).
func DefaultRouter() (router, local netip.Addr, ok bool, err error) {
	routes, err := listAll(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return netip.Addr{}, netip.Addr{}, false, fmt.Errorf("find the default router: %w", err)
	}
	var best *netlink.Route
	for i, r := range routes {
		isDefault := r.Dst == nil || r.Dst.IP.IsUnspecified() && isZeroMask(r.Dst.Mask)
		if isDefault && r.Gw != nil && (best == nil || r.Priority < best.Priority) {
			best = &routes[i]
		}
	}
	if best == nil {
		return netip.Addr{}, netip.Addr{}, false, nil
	}
	router, _ = netip.AddrFromSlice(best.Gw.To4())
	local, ok, err = addressTowards(best.LinkIndex, router)
	return router, local, ok && router.IsValid(), err
}

func isZeroMask(m net.IPMask) bool {
	ones, _ := m.Size()
	return ones == 0
}

// addressTowards returns the interface's address in the network of a neighbour.
func addressTowards(linkIndex int, neighbour netip.Addr) (netip.Addr, bool, error) {
	link, err := netlink.LinkByIndex(linkIndex)
	if err != nil {
		return netip.Addr{}, false, fmt.Errorf("find the default router: %w", err)
	}
	addresses, err := listAll(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_V4) })
	if err != nil {
		return netip.Addr{}, false, fmt.Errorf("find the default router: %w", err)
	}
	for _, a := range addresses {
		if local, valid := netip.AddrFromSlice(a.IP.To4()); valid && a.Contains(neighbour.AsSlice()) {
			return local, true, nil
		}
	}
	return netip.Addr{}, false, nil
}

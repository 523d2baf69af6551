package route

import (
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The kernel makes the local route of an IPv6 address some time after it has accepted the address, even without
// duplicate detection, and until then neither sends from it nor takes packets for it.
const (
	usableTries = 250
	usablePause = 2 * time.Millisecond
)

// awaitUsable waits until the IPv6 addresses can be used. One that the interface cannot have, as where IPv6 is off, is
// given up after half a second: nothing else depends on it.
func awaitUsable(addresses []netip.Prefix) {
	for _, p := range addresses {
		if !p.Addr().Is6() {
			continue
		}
		for try := 0; try < usableTries && !hasLocalRoute(p.Addr()); try++ {
			time.Sleep(usablePause)
		}
	}
}

func hasLocalRoute(address netip.Addr) bool {
	local := &netlink.Route{
		Table: unix.RT_TABLE_LOCAL, Dst: ipNet(netip.PrefixFrom(address, address.BitLen())),
	}
	// A dump that was disturbed by a change is as good as one that has found nothing.
	found, err := netlink.RouteListFiltered(netlink.FAMILY_V6, local, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	return err == nil && len(found) > 0
}

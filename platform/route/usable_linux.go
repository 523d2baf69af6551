package route

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The kernel makes an IPv6 address usable in a work queue of its own, even without duplicate detection: for a moment
// after it was added, sending from it fails.
const (
	usableLimit = time.Second
	usablePoll  = 2 * time.Millisecond
)

// awaitUsable waits until the IPv6 addresses on the device can be used as source. Addresses that are not there, as where
// IPv6 is off, are not waited for.
func awaitUsable(device string, addresses []netip.Prefix) error {
	if !slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		return nil
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("interface %s: %w", device, err)
	}
	for end := time.Now().Add(usableLimit); time.Now().Before(end); time.Sleep(usablePoll) {
		list, err := netlink.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return fmt.Errorf("addresses of %s: %w", device, err)
		}
		if !slices.ContainsFunc(list, func(a netlink.Addr) bool {
			return a.Flags&unix.IFA_F_TENTATIVE != 0 && a.Scope == int(netlink.SCOPE_UNIVERSE)
		}) {
			return nil
		}
	}
	return nil // it will be usable some time; nothing else depends on it
}

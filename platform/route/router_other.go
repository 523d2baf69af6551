//go:build !linux

package route

import "net/netip"

// DefaultRouter is supported on Linux alone.
func DefaultRouter() (router, local netip.Addr, ok bool, err error) {
	return netip.Addr{}, netip.Addr{}, false, unsupported("find the default router")
}

package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// KnownPrefixes returns every prefix that the host has an address in or a route to, in all tables and both
// families, sorted, for choosing a prefix that is free. Default routes, and the blocks larger than a /8 by
// which VPNs write them, are left out: they say nothing about what is in use.
func KnownPrefixes() ([]netip.Prefix, error) {
	state, err := readKernel()
	if err != nil {
		return nil, fmt.Errorf("list known prefixes: %w", err)
	}
	var out []netip.Prefix
	add := func(p netip.Prefix) {
		if p = p.Masked(); !defaultLike(p) {
			out = append(out, p)
		}
	}
	for slot := range state.addresses {
		add(slot.prefix)
	}
	for slot := range state.routes {
		add(slot.prefix)
	}
	return sortedPrefixes(out), nil
}

// Connected returns which of our prefixes overlap a network that another interface than exceptDevice is
// directly connected to: an address of the interface, or a route to it without a gateway, in any table.
// Default routes, in prefixes or on the host, overlap nothing.
func Connected(prefixes []netip.Prefix, exceptDevice string) ([]Conflict, error) {
	state, err := readKernel()
	if err != nil {
		return nil, fmt.Errorf("list connected networks: %w", err)
	}
	return conflicts(prefixes, state.connected(exceptDevice)), nil
}

func (k *kernel) connected(exceptDevice string) []connectedNetwork {
	var out []connectedNetwork
	add := func(p netip.Prefix, index int) {
		attrs, ok := k.links[index]
		p = p.Masked()
		if !ok || attrs.Name == exceptDevice || attrs.RawFlags&unix.IFF_LOOPBACK != 0 ||
			defaultLike(p) || localOnly(p) {
			return
		}
		out = append(out, connectedNetwork{prefix: p, device: attrs.Name})
	}
	for slot := range k.addresses {
		add(slot.prefix, slot.index)
	}
	for slot, routes := range k.routes {
		for _, r := range routes {
			if r.Type == unix.RTN_UNICAST && r.Gw == nil && r.Via == nil && len(r.MultiPath) == 0 {
				add(slot.prefix, r.LinkIndex)
			}
		}
	}
	slices.SortFunc(out, func(a, b connectedNetwork) int {
		return cmp.Or(comparePrefix(a.prefix, b.prefix), cmp.Compare(a.device, b.device))
	})
	return slices.Compact(out)
}

// UsableAddresses returns the host's unicast addresses on interfaces that are up, other than those named,
// best first: interfaces with a default route before others, lasting addresses before deprecated and
// temporary ones. Link-local and loopback addresses, and those that are tentative or failed duplicate
// detection, are left out.
func UsableAddresses(exceptDevices ...string) ([]HostAddress, error) {
	state, err := readKernel()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	gateways := state.defaultDevices()
	var out []HostAddress
	for slot, a := range state.addresses {
		link, ok := state.links[slot.index]
		kind, usable := KindOf(slot.prefix.Addr())
		if !ok || !usable || link.RawFlags&flagUp == 0 || link.RawFlags&unix.IFF_LOOPBACK != 0 ||
			slices.Contains(exceptDevices, link.Name) || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		out = append(out, HostAddress{
			Addr: slot.prefix.Addr(), Kind: kind, Device: link.Name, Index: slot.index,
			Default:    gateways[slot.index],
			Deprecated: a.Flags&unix.IFA_F_DEPRECATED != 0,
			Temporary:  slot.prefix.Addr().Is6() && a.Flags&unix.IFA_F_TEMPORARY != 0,
		})
	}
	slices.SortFunc(out, compareHostAddress)
	return out, nil
}

func compareHostAddress(a, b HostAddress) int {
	worse := func(x, y bool) int {
		switch {
		case x == y:
			return 0
		case x:
			return 1
		}
		return -1
	}
	return cmp.Or(worse(!a.Default, !b.Default), worse(a.Deprecated, b.Deprecated), worse(a.Temporary, b.Temporary),
		a.Addr.Compare(b.Addr), cmp.Compare(a.Index, b.Index))
}

// defaultDevices returns the interfaces that a default route leaves through.
func (k *kernel) defaultDevices() map[int]bool {
	out := map[int]bool{}
	for slot, routes := range k.routes {
		if slot.prefix.Bits() > 0 {
			continue
		}
		for _, r := range routes {
			if r.Type == unix.RTN_UNICAST {
				for _, index := range nextHops(r) {
					out[index] = true
				}
			}
		}
	}
	return out
}

func nextHops(r *netlink.Route) []int {
	if len(r.MultiPath) == 0 {
		return []int{r.LinkIndex}
	}
	out := make([]int, 0, len(r.MultiPath))
	for _, hop := range r.MultiPath {
		out = append(out, hop.LinkIndex)
	}
	return out
}

// defaultLike reports whether a route is no network but "everything else": the default route, or one of the
// halves and other large blocks by which VPNs write it. No single network is larger than a /8.
func defaultLike(p netip.Prefix) bool { return p.Bits() < 8 }

// localOnly reports whether a prefix holds only addresses that never leave their link.
func localOnly(p netip.Prefix) bool {
	a := p.Addr()
	return a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified()
}

package route

import (
	"net/netip"
	"slices"
)

// Conflict is a prefix of ours that overlaps a network which another interface reaches directly.
type Conflict struct {
	// Prefix is the one that was asked about.
	Prefix netip.Prefix
	// Network is the directly connected one.
	Network netip.Prefix
	// Device is the interface it is connected to.
	Device string
}

// AddressKind classifies a unicast address by who can reach it.
type AddressKind string

// Kinds of addresses.
const (
	// Private is IPv4 of RFC 1918.
	Private AddressKind = "private"
	// Shared is IPv4 of 100.64.0.0/10 (RFC 6598), behind a provider's NAT.
	Shared AddressKind = "shared"
	// UniqueLocal is IPv6 of fc00::/7 (RFC 4193).
	UniqueLocal AddressKind = "unique-local"
	// Global is any other unicast address.
	Global AddressKind = "global"
)

// HostAddress is an address of the host that others may be able to reach.
type HostAddress struct {
	Addr netip.Addr
	Kind AddressKind
	// Device and Index name the interface.
	Device string
	Index  int
	// Default says that a default route leaves through this interface.
	Default bool
	// Deprecated says that the address should not be used for new connections (RFC 4862 section 5.5.4).
	Deprecated bool
	// Temporary says that it is a privacy address that will go (RFC 8981).
	Temporary bool
}

// KindOf classifies an address; ok is false when it is not a usable unicast address (loopback, link-local,
// multicast, unspecified, IPv4-mapped, reserved 240.0.0.0/4).
func KindOf(a netip.Addr) (kind AddressKind, ok bool) {
	switch {
	case !a.IsValid() || a.Is4In6() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast(),
		a.IsLinkLocalUnicast():
		return "", false
	case a.Is4() && (a.As4()[0] >= 240 || a.As4()[0] == 0):
		return "", false
	case a.Is4() && netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10).Contains(a):
		return Shared, true
	case a.Is4() && a.IsPrivate():
		return Private, true
	case a.IsPrivate():
		return UniqueLocal, true
	}
	return Global, true
}

// connectedNetwork is a network that an interface reaches without a gateway.
type connectedNetwork struct {
	prefix netip.Prefix
	device string
}

// conflicts finds, for each prefix, the first network per device that overlaps it.
func conflicts(prefixes []netip.Prefix, networks []connectedNetwork) []Conflict {
	var out []Conflict
	for _, p := range prefixes {
		if p.Bits() == 0 {
			continue
		}
		var seen []string
		for _, n := range networks {
			if p.Overlaps(n.prefix) && !slices.Contains(seen, n.device) {
				seen = append(seen, n.device)
				out = append(out, Conflict{Prefix: p, Network: n.prefix, Device: n.device})
			}
		}
	}
	return out
}

package firewall

import (
	"net/netip"
	"slices"

	"github.com/aethertunnel/aethertunnel/platform/sysctl"
)

const (
	familyIPv4 = "ipv4"
	familyIPv6 = "ipv6"
	allDevices = "all"
)

// Forwarding is the desired forwarding state.
type Forwarding struct {
	// Device is our interface.
	Device string
	// Mark is the firewall mark of our own sockets; routes are looked up with it, so that our table is not
	// seen.
	Mark uint32
	// Granted are the prefixes behind this node. Without any nothing is held.
	Granted []netip.Prefix
}

// Host is what the planner needs to know about the host.
type Host struct {
	// Reach4 and Reach6 are the interfaces that the granted prefixes of each family are reached through.
	Reach4, Reach6 []string
	// Unreached are granted prefixes that no route leads to.
	Unreached []netip.Prefix
	// ForceForwarding says that the kernel has force_forwarding per interface (Linux 6.17).
	ForceForwarding bool
	// RouterUplinks are interfaces whose default route comes from router advertisements and whose accept_ra
	// is 1.
	RouterUplinks []string
	// Spread are the keys that net/ipv6/conf/all/forwarding overwrites.
	Spread []string
}

// NoticeKind says what a [Notice] is about.
type NoticeKind string

// Kinds of notices.
const (
	// NoRoute: a granted prefix is not reachable from this host, so nothing is forwarded to it.
	NoRoute NoticeKind = "no-route"
	// LeftAsIs: a parameter was changed by somebody else while we held it and was not restored.
	LeftAsIs NoticeKind = "left"
)

// Notice is something that the operator should know although the plan was applied.
type Notice struct {
	Kind   NoticeKind
	Detail string
}

// Settings returns the parameters to hold, in the order in which to set them: uplinks are told to go on
// accepting router advertisements before IPv6 forwarding would make them stop.
func (f Forwarding) Settings(host Host) []sysctl.Setting {
	var out []sysctl.Setting
	for _, device := range f.withOwn(host.Reach4) {
		out = append(out, sysctl.Setting{Key: sysctl.InterfaceKey(familyIPv4, device, "forwarding"), Value: "1"})
	}
	if len(host.Reach6) == 0 {
		return out
	}
	for _, device := range host.RouterUplinks {
		out = append(out, sysctl.Setting{Key: sysctl.InterfaceKey(familyIPv6, device, "accept_ra"), Value: "2"})
	}
	if !host.ForceForwarding {
		return append(out, sysctl.Setting{
			Key: sysctl.InterfaceKey(familyIPv6, allDevices, "forwarding"), Value: "1", Spreads: host.Spread,
		})
	}
	for _, device := range f.withOwn(host.Reach6) {
		key := sysctl.InterfaceKey(familyIPv6, device, "force_forwarding")
		out = append(out, sysctl.Setting{Key: key, Value: "1"})
	}
	return out
}

// withOwn adds our interface to those that a family's granted prefixes are reached through; replies come in
// there.
func (f Forwarding) withOwn(reach []string) []string {
	if len(reach) == 0 {
		return nil
	}
	out := slices.Concat([]string{f.Device}, reach)
	slices.Sort(out)
	return slices.Compact(out)
}

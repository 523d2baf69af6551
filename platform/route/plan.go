package route

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/aethertunnel/aethertunnel/platform/journal"
	"github.com/aethertunnel/aethertunnel/platform/sysctl"
)

const (
	// Protocol is the routing protocol number (rtm_protocol, FRA_PROTOCOL) of our routes and rules. 148 is in
	// the range free for daemons (above RTPROT_STATIC) and not assigned in the kernel's or iproute2's lists.
	Protocol = 148
	// GuardMetric is the metric of the unreachable routes; any route to the interface is better.
	GuardMetric = 1 << 30
	// DefaultMetric is the metric of routes that give none. IPv6 has no metric 0, so both families use this.
	DefaultMetric = 1024

	maxPlanPrefixes = 4096
	maxDeviceBytes  = 15
	minMTU          = 68
	maxMTU          = 65535
	minIPv6MTU      = 1280
	mainRule        = 32766 // priority of the kernel's own rule for the main table
)

// Sentinels of this package.
var (
	// ErrPlan: the plan is contradictory or out of bounds. Nothing was changed.
	ErrPlan = errors.New("invalid route plan")
	// ErrOccupied: somebody else has put something in the place of one of our routes or rules.
	ErrOccupied = errors.New("the place is taken by somebody else")
	// ErrNoSelectors: no free table, mark and priority were found.
	ErrNoSelectors = errors.New("no free routing table, mark and priority")
)

// Selectors are the numbers that keep several daemons in one network namespace apart.
type Selectors struct {
	// Table is the routing table, at least 256.
	Table uint32 `json:"table"`
	// Mark is the firewall mark of our own sockets.
	Mark uint32 `json:"mark"`
	// Priority is that of our policy rules, before the main table's 32766.
	Priority uint32 `json:"priority"`
}

// Route is a destination that is reached through our interface.
type Route struct {
	Prefix netip.Prefix
	// Metric is the priority, lower is better; 0 means [DefaultMetric].
	Metric uint32
}

// Plan is the desired state of our interface.
type Plan struct {
	// Device is the name of the interface. It must exist.
	Device string
	// MTU in bytes.
	MTU int
	// TxQueuePackets is the length of the interface's transmit queue; 0 leaves it.
	TxQueuePackets int
	// Addresses go on the interface, with their prefix length but without a route for it (noprefixroute,
	// nodad).
	Addresses []netip.Prefix
	// Routes go into our table.
	Routes []Route
	// Guards are our prefixes; each gets an unreachable route in our table that outlives the interface.
	Guards []netip.Prefix
	Selectors
}

// Validate returns an error matching [ErrPlan] when the plan cannot be applied.
func (p Plan) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrPlan, fmt.Sprintf(format, args...))
	}
	if p.Device == "" || len(p.Device) > maxDeviceBytes {
		return bad("device name %q", p.Device)
	}
	if p.MTU < minMTU || p.MTU > maxMTU {
		return bad("mtu %d is not in %d..%d", p.MTU, minMTU, maxMTU)
	}
	if p.TxQueuePackets < 0 {
		return bad("transmit queue of %d packets", p.TxQueuePackets)
	}
	if p.Table < 256 || p.Table > 1<<31-1 {
		return bad("table %d is not in 256..2147483647", p.Table)
	}
	if p.Mark == 0 {
		return bad("mark 0 selects every packet")
	}
	if p.Priority == 0 || p.Priority >= mainRule {
		return bad("priority %d is not before the main table", p.Priority)
	}
	if n := len(p.Addresses) + len(p.Routes) + len(p.Guards); n > maxPlanPrefixes {
		return bad("%d prefixes, at most %d", n, maxPlanPrefixes)
	}
	for _, a := range p.Addresses {
		if !a.IsValid() || a.Addr().Is4In6() || a.Addr().IsUnspecified() || a.Addr().Zone() != "" {
			return bad("address %v", a)
		}
	}
	for _, r := range p.Routes {
		if !cleanPrefix(r.Prefix) || r.Metric >= GuardMetric {
			return bad("route %v metric %d", r.Prefix, r.Metric)
		}
	}
	for _, g := range p.Guards {
		if !cleanPrefix(g) {
			return bad("guard %v", g)
		}
	}
	return nil
}

func cleanPrefix(p netip.Prefix) bool {
	return p.IsValid() && !p.Addr().Is4In6() && p == p.Masked()
}

// Canonical returns the plan with default metrics filled in, lists sorted and doubles removed.
func (p Plan) Canonical() Plan {
	p.Addresses = sortedPrefixes(p.Addresses)
	p.Guards = sortedPrefixes(p.Guards)
	routes := slices.Clone(p.Routes)
	for i := range routes {
		if routes[i].Metric == 0 {
			routes[i].Metric = DefaultMetric
		}
	}
	slices.SortFunc(routes, func(a, b Route) int {
		return cmp.Or(comparePrefix(a.Prefix, b.Prefix), cmp.Compare(a.Metric, b.Metric))
	})
	p.Routes = slices.Compact(routes)
	return p
}

// Equal reports whether two plans ask for the same state.
func (p Plan) Equal(o Plan) bool {
	a, b := p.Canonical(), o.Canonical()
	return a.Device == b.Device && a.MTU == b.MTU && a.TxQueuePackets == b.TxQueuePackets &&
		a.Selectors == b.Selectors && slices.Equal(a.Addresses, b.Addresses) &&
		slices.Equal(a.Routes, b.Routes) && slices.Equal(a.Guards, b.Guards)
}

func sortedPrefixes(in []netip.Prefix) []netip.Prefix {
	out := slices.Clone(in)
	slices.SortFunc(out, comparePrefix)
	return slices.Compact(out)
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// NoticeKind says what a [Notice] is about.
type NoticeKind string

// Kinds of notices.
const (
	// IPv6Off: IPv6 is disabled on the host or the interface, so the IPv6 part of the plan was left out.
	IPv6Off NoticeKind = "ipv6-off"
	// LeftAsIs: something of an earlier plan was changed by somebody else and was not taken back.
	LeftAsIs NoticeKind = "left"
)

// Notice is something that the operator should know although the plan was applied.
type Notice struct {
	Kind NoticeKind
	// Detail is one lower-case line that names the place and the remedy.
	Detail string
}

// Holder holds kernel parameters. [*sysctl.Holds] implements it.
type Holder interface {
	Hold(sysctl.Setting) error
}

// Config is what a [Manager] works with.
type Config struct {
	Journal journal.Recorder
	Sysctls Holder
}

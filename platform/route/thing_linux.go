package route

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

// Kinds of journal records.
const (
	kindLink    = "route.link"
	kindAddress = "route.address"
	kindRoute   = "route.route"
	kindRule    = "route.rule"
)

// thing is one part of the desired state. Its JSON form is the body of its journal record.
type thing interface {
	// key names the thing within a Manager.
	key() string
	kind() string
	// present reports whether the kernel has exactly this thing.
	present(*kernel) bool
	add() error
	// remove takes the thing back if it is there and exactly ours; what somebody has put in its place it
	// returns.
	remove(*kernel) ([]journal.Left, error)
}

// Undoers returns the undoers of this package's records.
func Undoers() journal.Registry {
	return journal.Registry{
		kindLink:    undoer[*linkThing](),
		kindAddress: undoer[*addressThing](),
		kindRoute:   undoer[*routeThing](),
		kindRule:    undoer[*ruleThing](),
	}
}

func undoer[T thing]() journal.Undoer {
	return func(r journal.Record) ([]journal.Left, error) {
		var t T
		if err := json.Unmarshal(r.Body, &t); err != nil {
			return nil, fmt.Errorf("undo %s: %w", r.Kind, err)
		}
		if any(t) == any(*new(T)) {
			return nil, fmt.Errorf("undo %s: empty record", r.Kind)
		}
		state, err := readKernel()
		if err != nil {
			return nil, fmt.Errorf("undo %s: %w", r.Kind, err)
		}
		left, err := t.remove(state)
		if err != nil {
			return left, fmt.Errorf("undo %s %s: %w", r.Kind, t.key(), err)
		}
		return left, nil
	}
}

// deviceID names an interface so that another one that got the same name later is not taken for it.
type deviceID struct {
	Device string `json:"device"`
	Index  int    `json:"index"`
}

// addressThing is an address on our interface.
type addressThing struct {
	deviceID
	Prefix netip.Prefix `json:"prefix"`
}

func (t *addressThing) key() string {
	return fmt.Sprintf("address %v dev %s %d", t.Prefix, t.Device, t.Index)
}
func (t *addressThing) kind() string { return kindAddress }

func (t *addressThing) present(k *kernel) bool { return k.address(t.Index, t.Prefix) }

func (t *addressThing) add() error {
	if err := netlink.AddrAdd(linkRef(t.Index), t.message()); err != nil {
		return fmt.Errorf("add %s: %w", t.key(), err)
	}
	return nil
}

func (t *addressThing) remove(k *kernel) ([]journal.Left, error) {
	if !k.same(t.deviceID) || !t.present(k) {
		return nil, nil
	}
	return nil, gone(netlink.AddrDel(linkRef(t.Index), t.message()))
}

func (t *addressThing) message() *netlink.Addr {
	flags := unix.IFA_F_NOPREFIXROUTE
	if t.Prefix.Addr().Is6() {
		flags |= unix.IFA_F_NODAD
	}
	// A broadcast address would add routes to the local table that nobody asked for.
	return &netlink.Addr{IPNet: ipNet(t.Prefix), Flags: flags, Broadcast: net.IPv4zero}
}

// routeThing is a route in our table: to our interface, or unreachable when Index is 0.
type routeThing struct {
	deviceID
	Prefix netip.Prefix `json:"prefix"`
	Table  uint32       `json:"table"`
	Metric uint32       `json:"metric"`
}

func (t *routeThing) guard() bool  { return t.Index == 0 }
func (t *routeThing) kind() string { return kindRoute }

func (t *routeThing) key() string {
	if t.guard() {
		return fmt.Sprintf("unreachable %v table %d metric %d", t.Prefix, t.Table, t.Metric)
	}
	return fmt.Sprintf("route %v dev %s %d table %d metric %d", t.Prefix, t.Device, t.Index, t.Table, t.Metric)
}

// slot is what the kernel tells routes apart by.
func (t *routeThing) slot() routeSlot {
	return routeSlot{prefix: t.Prefix, table: t.Table, metric: t.Metric}
}

func (t *routeThing) matches(r *netlink.Route) bool {
	if r.Protocol != Protocol {
		return false
	}
	if t.guard() {
		return r.Type == unix.RTN_UNREACHABLE
	}
	return r.Type == unix.RTN_UNICAST && r.LinkIndex == t.Index && r.Gw == nil && len(r.MultiPath) == 0
}

func (t *routeThing) present(k *kernel) bool {
	for _, r := range k.routes[t.slot()] {
		if t.matches(r) {
			return true
		}
	}
	return false
}

func (t *routeThing) add() error {
	if err := netlink.RouteAdd(t.message()); err != nil {
		return fmt.Errorf("add %s: %w", t.key(), err)
	}
	return nil
}

func (t *routeThing) remove(k *kernel) ([]journal.Left, error) {
	there := k.routes[t.slot()]
	if t.present(k) {
		return nil, gone(netlink.RouteDel(t.message()))
	}
	// A route of another protocol in the same slot took our route's place. One of our protocol is a newer one
	// of ours to another interface.
	var left []journal.Left
	for _, r := range there {
		if r.Protocol != Protocol {
			left = append(left, journal.Left{
				Thing: "route " + t.slot().String(), Set: t.key(), Found: describeRoute(r),
			})
		}
	}
	return left, nil
}

func (t *routeThing) message() *netlink.Route {
	r := &netlink.Route{
		Dst: ipNet(t.Prefix), Table: int(t.Table), Priority: int(t.Metric), Protocol: Protocol,
		Family: familyOf(t.Prefix.Addr()), LinkIndex: t.Index, Type: unix.RTN_UNICAST,
	}
	if t.guard() {
		r.Type = unix.RTN_UNREACHABLE
	} else if t.Prefix.Addr().Is4() {
		r.Scope = unix.RT_SCOPE_LINK
	}
	return r
}

// ruleThing is the policy rule "not fwmark Mark lookup Table" of one family.
type ruleThing struct {
	IPv6 bool `json:"ipv6"`
	Selectors
}

func (t *ruleThing) kind() string { return kindRule }

func (t *ruleThing) key() string {
	return fmt.Sprintf("%s priority %d not fwmark 0x%x lookup %d", t.slot(), t.Priority, t.Mark, t.Table)
}

func (t *ruleThing) slot() string {
	if t.IPv6 {
		return "ipv6 rule"
	}
	return "ipv4 rule"
}

func (t *ruleThing) family() int {
	if t.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func (t *ruleThing) present(k *kernel) bool {
	for _, r := range k.rules[t.family()] {
		if t.matches(&r) {
			return true
		}
	}
	return false
}

func (t *ruleThing) matches(r *netlink.Rule) bool {
	return r.Protocol == Protocol && r.Priority == int(t.Priority) && r.Table == int(t.Table) &&
		r.Mark == t.Mark && r.Invert && (r.Mask == nil || *r.Mask == wholeMark) && r.Src == nil && r.Dst == nil &&
		r.IifName == "" && r.OifName == ""
}

func (t *ruleThing) add() error {
	if err := netlink.RuleAdd(t.message()); err != nil {
		return fmt.Errorf("add %s: %w", t.key(), err)
	}
	return nil
}

func (t *ruleThing) remove(k *kernel) ([]journal.Left, error) {
	if t.present(k) {
		return nil, gone(netlink.RuleDel(t.message()))
	}
	var left []journal.Left
	for _, r := range k.rules[t.family()] {
		if r.Priority == int(t.Priority) && r.Protocol != Protocol {
			left = append(left, journal.Left{
				Thing: fmt.Sprintf("%s priority %d", t.slot(), t.Priority), Set: t.key(), Found: describeRule(&r),
			})
		}
	}
	return left, nil
}

func (t *ruleThing) message() *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table = t.family(), int(t.Priority), int(t.Table)
	mask := uint32(wholeMark)
	r.Mark, r.Mask, r.Invert, r.Protocol = t.Mark, &mask, true, Protocol
	return r
}

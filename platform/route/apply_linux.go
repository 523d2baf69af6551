package route

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal"
	"github.com/aethertunnel/aethertunnel/platform/sysctl"
)

// Manager brings the kernel to a [Plan]. Its methods are safe for concurrent use.
type Manager struct {
	cfg Config

	mu   sync.Mutex // guards made
	made []made     // what is ours, in the order in which it was made

	step func() error // tests only: called before each change to the host
}

type made struct {
	thing thing
	id    journal.ID
}

// New returns a Manager that has made nothing. It does not touch the host.
func New(cfg Config) *Manager { return &Manager{cfg: cfg} }

// Set makes the difference between what is there and the plan: it adds what is missing and removes what this
// Manager made for an earlier plan. Guards come before rules and rules before the interface, so that no
// packet for a tunnel address can take another way in between.
//
// Everything new is recorded with one fsync before the first change. After an error the host may have part of
// the plan; the journal describes it, and either Set may be called again or the journal be undone. Taking
// everything back is the journal's Undo; the Manager is of no use after it.
func (m *Manager) Set(plan Plan) ([]Notice, error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	state, err := readKernel()
	if err != nil {
		return nil, fmt.Errorf("set routes: %w", err)
	}
	device, ok := state.find(plan.Device)
	if !ok {
		return nil, fmt.Errorf("set routes: interface %s: %w", plan.Device, unix.ENODEV)
	}
	plan = plan.Canonical()
	notices, noIPv6 := ipv6State(plan)
	wanted := desired(plan, device, noIPv6)
	more, err := m.change(state, wanted)
	notices = append(notices, more...)
	if err != nil {
		return notices, fmt.Errorf("set routes: %w", err)
	}
	if noIPv6 == ipv6Full {
		awaitUsable(plan.Addresses)
	}
	return notices, nil
}

// ipv6Reach says how much of IPv6 the host has.
type ipv6Reach int

const (
	ipv6Full   ipv6Reach = iota
	ipv6NoLink           // not on our interface; guards and rules still keep packets from leaking elsewhere
	ipv6None
)

func ipv6State(plan Plan) ([]Notice, ipv6Reach) {
	key := sysctl.InterfaceKey("ipv6", plan.Device, "disable_ipv6")
	value, err := sysctl.Read(key)
	wanted := slices.ContainsFunc(plan.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	var reach ipv6Reach
	var detail string
	_, tree := os.Stat("/proc/sys/net/ipv6")
	switch {
	case tree != nil:
		reach, detail = ipv6None, "the kernel runs without IPv6, so the tunnel has IPv4 only"
	case errors.Is(err, sysctl.ErrNoKey) || (err == nil && value != "0"):
		reach = ipv6NoLink
		detail = fmt.Sprintf("IPv6 is disabled on %s, so the tunnel has IPv4 only; to enable it: sysctl %s=0",
			plan.Device, key)
	case plan.MTU < minIPv6MTU:
		reach = ipv6NoLink
		detail = fmt.Sprintf("mtu %d of %s is below the 1280 that IPv6 needs, so the tunnel has IPv4 only",
			plan.MTU, plan.Device)
	}
	if detail == "" || !wanted {
		return nil, reach
	}
	return []Notice{{Kind: IPv6Off, Detail: detail}}, reach
}

// desired lists the things of a plan in the order in which they are made.
func desired(plan Plan, device deviceID, reach ipv6Reach) []thing {
	usable := func(a netip.Addr, least ipv6Reach) bool { return a.Is4() || reach <= least }
	var out []thing
	for _, g := range plan.Guards {
		if usable(g.Addr(), ipv6NoLink) {
			out = append(out, &routeThing{Prefix: g, Table: plan.Table, Metric: GuardMetric})
		}
	}
	out = append(out, &ruleThing{Selectors: plan.Selectors})
	if reach < ipv6None {
		out = append(out, &ruleThing{IPv6: true, Selectors: plan.Selectors})
	}
	out = append(out, &linkThing{deviceID: device, Attr: attrMTU, Set: plan.MTU})
	if plan.TxQueuePackets > 0 {
		out = append(out, &linkThing{deviceID: device, Attr: attrTxQueue, Set: plan.TxQueuePackets})
	}
	out = append(out, &linkThing{deviceID: device, Attr: attrUp, Set: linkUpAttr})
	for _, a := range plan.Addresses {
		if usable(a.Addr(), ipv6Full) {
			out = append(out, &addressThing{deviceID: device, Prefix: a})
		}
	}
	for _, r := range plan.Routes {
		if usable(r.Prefix.Addr(), ipv6Full) {
			out = append(out, &routeThing{deviceID: device, Prefix: r.Prefix, Table: plan.Table, Metric: r.Metric})
		}
	}
	return out
}

// change records, adds and removes.
func (m *Manager) change(state *kernel, wanted []thing) ([]Notice, error) {
	missing := m.missing(state, wanted)
	if err := m.record(missing); err != nil {
		return nil, err
	}
	if err := m.cfg.Sysctls.Hold(sysctl.Setting{Key: sysctl.SrcValidMark, Value: "1"}); err != nil {
		return nil, err
	}
	for _, t := range missing {
		if t.present(state) {
			continue
		}
		if err := m.pause(); err != nil {
			return nil, err
		}
		if err := addNow(t); err != nil {
			return nil, err
		}
	}
	return m.removeStale(wanted)
}

// missing returns the things that are to be recorded or made: those that are not there, and those that are
// there, carry our protocol number and are not in our books, as after the loss of a journal.
func (m *Manager) missing(state *kernel, wanted []thing) []thing {
	var out []thing
	for _, t := range wanted {
		at := m.find(t.key())
		link, isLink := t.(*linkThing)
		switch {
		case isLink && at >= 0:
			old, ok := m.made[at].thing.(*linkThing)
			if !ok || (old.Set == link.Set && t.present(state)) {
				continue
			}
			link.Before, link.Was = old.Before, old.Set
		case isLink:
			link.Before, _ = state.linkValue(link.deviceID, link.Attr)
			link.Was = link.Before
			if t.present(state) {
				continue
			}
		case t.present(state) && (at >= 0 || t.kind() == kindAddress):
			// An address that was there before us is not ours to take away; it cannot tell whose it is.
			continue
		}
		out = append(out, t)
	}
	return out
}

func (m *Manager) find(key string) int {
	return slices.IndexFunc(m.made, func(o made) bool { return o.thing.key() == key })
}

// record puts the things that are not in the journal there. A link attribute with a new value replaces its
// record after the new one is on disk.
func (m *Manager) record(things []thing) error {
	var fresh []thing
	var changes []journal.Change
	for _, t := range things {
		if _, isLink := t.(*linkThing); !isLink && m.find(t.key()) >= 0 {
			continue
		}
		fresh = append(fresh, t)
		changes = append(changes, journal.Change{Kind: t.kind(), Body: t})
	}
	ids, err := m.cfg.Journal.Record(changes...)
	if err != nil {
		return err
	}
	var replaced []journal.ID
	for i, t := range fresh {
		if at := m.find(t.key()); at >= 0 {
			replaced = append(replaced, m.made[at].id)
			m.made[at] = made{thing: t, id: ids[i]}
			continue
		}
		m.made = append(m.made, made{thing: t, id: ids[i]})
	}
	if len(replaced) == 0 {
		return nil
	}
	return m.cfg.Journal.Forget(replaced...)
}

// removeStale takes back, last first, what was made for an earlier plan and is not in this one.
func (m *Manager) removeStale(wanted []thing) ([]Notice, error) {
	keep := map[string]bool{}
	for _, t := range wanted {
		keep[t.key()] = true
	}
	if !slices.ContainsFunc(m.made, func(o made) bool { return !keep[o.thing.key()] }) {
		return nil, nil
	}
	state, err := readKernel()
	if err != nil {
		return nil, err
	}
	var notices []Notice
	var ids []journal.ID
	for i, o := range slices.Backward(m.made) {
		if keep[o.thing.key()] {
			continue
		}
		if err := m.pause(); err != nil {
			return notices, err
		}
		left, err := o.thing.remove(state)
		if err != nil {
			return notices, err
		}
		for _, l := range left {
			notices = append(notices, Notice{Kind: LeftAsIs, Detail: l.String()})
		}
		ids = append(ids, o.id)
		m.made = slices.Delete(m.made, i, i+1)
	}
	return notices, m.cfg.Journal.Forget(ids...)
}

func (m *Manager) pause() error {
	if m.step == nil {
		return nil
	}
	return m.step()
}

// addNow adds a thing. If something is in its place already, it must be the same thing.
func addNow(t thing) error {
	err := t.add()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	state, readErr := readKernel()
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	if t.present(state) {
		return nil
	}
	return fmt.Errorf("%w (%w)", ErrOccupied, err)
}

package route

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// Choose returns table, mark and rule priority that nothing else in this namespace uses. They are derived
// from the state directory, so they are the same at every start unless somebody has taken them; several
// daemons with different state directories get different ones. A remembered choice, or the zero value, may be
// passed in; it is kept if it is free or what is there is ours from before. Errors: [ErrNoSelectors], of
// netlink.
func Choose(stateDir string, remembered Selectors) (Selectors, error) {
	state, err := readKernel()
	if err != nil {
		return Selectors{}, fmt.Errorf("choose a routing table: %w", err)
	}
	return choose(stateDir, remembered, state.usage(remembered))
}

// usage collects what is taken, except by our own rules and routes of the remembered choice.
func (k *kernel) usage(remembered Selectors) usage {
	u := usage{tables: map[uint32]bool{}, priorities: map[uint32]bool{}}
	for slot, routes := range k.routes {
		for _, r := range routes {
			if slot.table != remembered.Table || r.Protocol != Protocol {
				u.tables[slot.table] = true
			}
		}
	}
	for _, rules := range k.rules {
		for i := range rules {
			k.ruleUsage(&u, &rules[i], remembered)
		}
	}
	return u
}

func (k *kernel) ruleUsage(u *usage, r *netlink.Rule, remembered Selectors) {
	ours4, ours6 := ruleThing{Selectors: remembered}, ruleThing{IPv6: true, Selectors: remembered}
	if ours4.matches(r) || ours6.matches(r) {
		return
	}
	u.tables[uint32(r.Table)] = true
	u.priorities[uint32(r.Priority)] = true
	if r.Mark == 0 && r.Mask == nil {
		return
	}
	mask := uint32(wholeMark)
	if r.Mask != nil {
		mask = *r.Mask
	}
	if mask != 0 {
		u.marks = append(u.marks, markUse{mark: r.Mark, mask: mask})
	}
}

package firewall

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// chainID names a chain.
type chainID struct {
	family nftables.TableFamily
	table  string
	chain  string
}

// ruleset is the rules of the whole namespace.
type ruleset struct {
	bases []*nftables.Chain
	rules map[chainID][]foundRule
}

// ForeignDrops finds the base chains of others on the forward hook that would drop new connections forwarded
// in or out of our interface tun, by their policy or by a rule that matches everything left. Rules whose
// match depends on more than interfaces and connection state are not counted on either way: what they accept
// may be dropped later, what they drop is somebody's decision about some packets. Rules made by the legacy
// iptables program are not in nf_tables and are not seen. Errors: [*MissingError], of netlink.
func ForeignDrops(tun string) ([]ForeignDrop, error) {
	set, err := readRuleset()
	if err != nil {
		return nil, fmt.Errorf("list firewall rules: %w", err)
	}
	var out []ForeignDrop
	for _, base := range set.bases {
		if d, ok := set.judge(base, tun); ok {
			out = append(out, d)
		}
	}
	return out, nil
}

func readRuleset() (*ruleset, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, missingTables(err)
	}
	set := &ruleset{rules: map[chainID][]foundRule{}}
	for _, c := range chains {
		if onForwardHook(c) && !strings.HasPrefix(c.Table.Name, TablePrefix) {
			set.bases = append(set.bases, c)
		}
	}
	if len(set.bases) == 0 {
		return set, nil
	}
	rules, err := dumpRules(nftables.TableFamilyUnspecified, "")
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		id := chainID{family: r.family, table: r.table, chain: r.chain}
		set.rules[id] = append(set.rules[id], r)
	}
	return set, nil
}

func onForwardHook(c *nftables.Chain) bool {
	switch c.Table.Family {
	case nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet:
		return c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Type == nftables.ChainTypeFilter
	case nftables.TableFamilyUnspecified, nftables.TableFamilyARP, nftables.TableFamilyNetdev,
		nftables.TableFamilyBridge:
	}
	return false
}

// judge follows packets in and out of tun, in each address family of the chain.
func (s *ruleset) judge(base *nftables.Chain, tun string) (ForeignDrop, bool) {
	id := chainID{family: base.Table.Family, table: base.Table.Name, chain: base.Name}
	for _, probe := range probes(base.Table.Family, tun) {
		w := walk{set: s, probe: probe, stepsLeft: maxSteps}
		reason, dropped := w.base(id, base.Policy)
		if !dropped {
			continue
		}
		owner := s.owner(id)
		d := ForeignDrop{
			Family: familyName(id.family), Table: id.table, Chain: id.chain, Reason: reason, Owner: owner,
		}
		d.Remedy = remedy(owner, d.Family, d.Table, d.Chain, tun)
		return d, true
	}
	return ForeignDrop{}, false
}

func probes(family nftables.TableFamily, tun string) []probe {
	protocols := []byte{byte(family)}
	if family == nftables.TableFamilyINet {
		protocols = []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}
	}
	var out []probe
	for _, protocol := range protocols {
		out = append(out, probe{protocol: protocol, in: tun, tun: tun}, probe{protocol: protocol, out: tun, tun: tun})
	}
	return out
}

func familyName(family nftables.TableFamily) string {
	switch family {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyUnspecified, nftables.TableFamilyINet, nftables.TableFamilyARP,
		nftables.TableFamilyNetdev, nftables.TableFamilyBridge:
	}
	return "inet"
}

// owner tells whose a base chain is by the names of the table and of the chains that it leads to. Where
// Docker and ufw share the chain, ufw's command is the one that lasts.
func (s *ruleset) owner(base chainID) Owner {
	reached := s.reachable(base)
	has := func(prefixes ...string) bool {
		return slices.ContainsFunc(reached, func(name string) bool {
			return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
		})
	}
	switch {
	case has("ufw-", "ufw6-"):
		return UFW
	case has("DOCKER"):
		return Docker
	case base.table == "firewalld", has("FORWARD_IN_ZONES", "FWDI_", "filter_FORWARD_"):
		return Firewalld
	}
	return Unknown
}

// reachable lists the chains that rules lead to from a base chain.
func (s *ruleset) reachable(base chainID) []string {
	seen := map[string]bool{}
	var out []string
	for queue := []string{base.chain}; len(queue) > 0; {
		name := queue[0]
		queue = queue[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		out = append(out, name)
		for _, r := range s.rules[chainID{family: base.family, table: base.table, chain: name}] {
			for _, e := range r.exprs {
				if target := e.jumpTarget(r.family); target != "" {
					queue = append(queue, target)
				}
			}
		}
	}
	return out
}

// remedy returns the command for an owner and family.
func remedy(owner Owner, family, table, chain, device string) string {
	switch owner {
	case Docker:
		tool := "iptables"
		if family == "ip6" {
			tool = "ip6tables"
		}
		return fmt.Sprintf("%s -I DOCKER-USER -i %s -j ACCEPT && %s -I DOCKER-USER -o %s -j ACCEPT",
			tool, device, tool, device)
	case UFW:
		return fmt.Sprintf("ufw route allow in on %s && ufw route allow out on %s", device, device)
	case Firewalld:
		return fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd --reload",
			device)
	case Unknown:
	}
	return fmt.Sprintf("nft insert rule %s %s %s iifname %q accept && nft insert rule %s %s %s oifname %q accept",
		family, table, chain, device, family, table, chain, device)
}

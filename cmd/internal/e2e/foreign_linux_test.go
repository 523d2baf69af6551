package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/control/api"
)

// A foreignFirewall is what another program has set up on a gateway's machine: it lets nothing be forwarded.
type foreignFirewall struct {
	family nftables.TableFamily
	table  string
	base   string // chain at the forward hook with policy drop
	user   string // chain for rules of the operator, that the base jumps to; none when ""
	remedy string // what `up` and `status` have to say, with DEVICE
}

// foreignFirewalls are those of the programs that people have, for both address families each.
func foreignFirewalls() map[string][]foreignFirewall {
	const iptables = "-I DOCKER-USER -i DEVICE -j ACCEPT && TOOL -I DOCKER-USER -o DEVICE -j ACCEPT"
	const ufw = "ufw route allow in on DEVICE && ufw route allow out on DEVICE"
	return map[string][]foreignFirewall{
		"docker": {
			{
				nftables.TableFamilyIPv4, "filter", "FORWARD", "DOCKER-USER",
				strings.ReplaceAll("TOOL "+iptables, "TOOL", "iptables"),
			},
			{
				nftables.TableFamilyIPv6, "filter", "FORWARD", "DOCKER-USER",
				strings.ReplaceAll("TOOL "+iptables, "TOOL", "ip6tables"),
			},
		},
		"ufw": {
			{nftables.TableFamilyIPv4, "filter", "FORWARD", "ufw-user-forward", ufw},
			{nftables.TableFamilyIPv6, "filter", "FORWARD", "ufw6-user-forward", ufw},
		},
		"an operator": {
			{
				nftables.TableFamilyINet, "site", "forwarding", "",
				`nft insert rule inet site forwarding iifname "DEVICE" accept && ` +
					`nft insert rule inet site forwarding oifname "DEVICE" accept`,
			},
		},
	}
}

// A firewall of another program that drops what is forwarded: `up` and `status` name its chain and the
// command that lets our packets through, and leave it alone; that command does it.
func TestAForeignFirewallThatDropsForwardedPackets(t *testing.T) {
	t.Parallel()
	for owner, chains := range foreignFirewalls() {
		t.Run(owner, func(t *testing.T) {
			t.Parallel()
			g, l := twoMachines(t)
			printer := newMachine(t, "printer")
			cable(g, "lan0", printer, "eth0", []string{"192.168.7.1/24", "2001:db8:7::1/64"},
				[]string{"192.168.7.2/24", "2001:db8:7::2/64"})
			lan := []netip.Addr{netip.MustParseAddr("192.168.7.2"), netip.MustParseAddr("2001:db8:7::2")}
			for _, f := range chains {
				f.setUp(t, g)
			}
			gateway := gatewayUp(g, "--advertise-routes", "192.168.7.0/24,2001:db8:7::/64")
			notices := gateway.status().Notices
			if len(notices) != len(chains) {
				t.Errorf("%d chains drop packets, notices are %q", len(chains), notices)
			}
			var remedies []string
			for _, f := range chains {
				remedy := strings.ReplaceAll(f.remedy, "DEVICE", gateway.status().Device.Name)
				remedies = append(remedies, remedy)
				f.named(gateway, remedy)
			}
			l.up("laptop", "--name", "laptop", gateway.invite()).connected()
			l.reaches(gateway.address4(), gateway.address6())
			l.doesNotReach(lan...)

			for i, f := range chains {
				f.carryOut(t, g, remedies[i])
			}
			l.reaches(lan...)
			// Nothing else happens: the gateway looks again by itself.
			gateway.awaitStatus("without a notice", func(s api.Status) bool { return len(s.Notices) == 0 })
		})
	}
}

// The same on a member's machine, once its LAN has been approved.
func TestAForeignFirewallAtAMember(t *testing.T) {
	t.Parallel()
	g, o, _ := behindMember(t)
	lan := netip.MustParseAddr("192.168.7.2")
	f := foreignFirewalls()["an operator"][0]
	f.setUp(t, o)
	gateway := gatewayUp(g)
	office := o.up("office", "--name", "office", "--advertise-routes", "192.168.7.0/24",
		gateway.invite("--routes", "192.168.7.0/24")).connected()
	office.awaitStatus("granting its LAN", func(s api.Status) bool { return len(s.Granted) == 1 })
	remedy := strings.ReplaceAll(f.remedy, "DEVICE", office.status().Device.Name)
	f.named(office, remedy)
	g.doesNotReach(lan)
	f.carryOut(t, o, remedy)
	g.reaches(lan)
	office.awaitStatus("without a notice", func(s api.Status) bool { return len(s.Notices) == 0 })
}

// named checks that `up` and `status` tell of the chain in one line.
func (f foreignFirewall) named(gateway *daemon, remedy string) {
	gateway.t.Helper()
	family := map[nftables.TableFamily]string{
		nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
	}[f.family]
	where := fmt.Sprintf("(%s %s, chain %s, policy drop)", family, f.table, f.base)
	gateway.await(where)
	for what, lines := range map[string][]string{
		"up": gateway.output.lines(where), "status": strings.Split(gateway.verb("status"), "\n"),
	} {
		told := slices.ContainsFunc(lines, func(line string) bool {
			return strings.Contains(line, where) && strings.HasSuffix(line, "remedy: "+remedy)
		})
		if !told {
			gateway.t.Errorf("%s does not name %s with the remedy %s:\n%s", what, where, remedy, strings.Join(lines, "\n"))
		}
	}
}

// setUp makes the firewall.
func (f foreignFirewall) setUp(t *testing.T, m *machine) {
	t.Helper()
	err := m.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		policy := nftables.ChainPolicyDrop
		table := c.AddTable(&nftables.Table{Family: f.family, Name: f.table})
		base := c.AddChain(&nftables.Chain{
			Name: f.base, Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
			Priority: nftables.ChainPriorityFilter, Policy: &policy,
		})
		if f.user != "" {
			user := c.AddChain(&nftables.Chain{Name: f.user, Table: table})
			c.AddRule(&nftables.Rule{Table: table, Chain: base, Exprs: []expr.Any{
				&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictJump, Chain: user.Name},
			}})
		}
		return c.Flush()
	})
	if err != nil {
		t.Fatalf("make the firewall of %s: %v", m.Name(), err)
	}
}

// carryOut does what the commands of a remedy do, word for word, without the programs that they name: it
// puts a rule for each direction first into the chain that the command means. The end of the test takes them
// back.
func (f foreignFirewall) carryOut(t *testing.T, m *machine, remedy string) {
	t.Helper()
	chain := f.base
	if f.user != "" {
		chain = f.user
	}
	commands := strings.Split(remedy, " && ")
	var rules []nftables.Rule
	for _, command := range commands {
		words := regexp.MustCompile(`(iifname|oifname|-i|-o|in on|out on) "?([^" ]+)"?`).FindStringSubmatch(command)
		if words == nil {
			t.Fatalf("the command %q names no interface", command)
		}
		key := expr.MetaKeyIIFNAME
		if strings.HasPrefix(strings.TrimPrefix(words[1], "-"), "o") {
			key = expr.MetaKeyOIFNAME
		}
		name := append([]byte(words[2]), make([]byte, unix.IFNAMSIZ-len(words[2]))...)
		rules = append(rules, nftables.Rule{
			Table: &nftables.Table{Family: f.family, Name: f.table},
			Chain: &nftables.Chain{Name: chain},
			Exprs: []expr.Any{
				&expr.Meta{Key: key, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
				&expr.Counter{},
				&expr.Verdict{Kind: expr.VerdictAccept},
			},
		})
	}
	f.change(t, m, "carry out "+remedy, func(c *nftables.Conn) error {
		for i := range rules {
			c.InsertRule(&rules[i])
		}
		return c.Flush()
	})
	t.Cleanup(func() {
		f.change(t, m, "take back "+remedy, func(c *nftables.Conn) error {
			found, err := c.GetRules(rules[0].Table, rules[0].Chain)
			if err != nil {
				return err
			}
			for _, rule := range found[:len(rules)] { // they were put first
				if err := c.DelRule(rule); err != nil {
					return err
				}
			}
			return c.Flush()
		})
	})
}

func (f foreignFirewall) change(t *testing.T, m *machine, what string, change func(*nftables.Conn) error) {
	t.Helper()
	err := m.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		return change(c)
	})
	if err != nil {
		t.Errorf("%s on %s: %v", what, m.Name(), err)
	}
}

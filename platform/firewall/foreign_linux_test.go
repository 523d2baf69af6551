package firewall

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
)

// script builds a ruleset the way its owner does.
type script struct {
	t      *testing.T
	conn   *nftables.Conn
	table  *nftables.Table
	chains map[string]*nftables.Chain
}

func newScript(t *testing.T, family nftables.TableFamily, table string) *script {
	t.Helper()
	s := &script{t: t, conn: kernelConn(t), chains: map[string]*nftables.Chain{}}
	s.table = s.conn.AddTable(&nftables.Table{Family: family, Name: table})
	return s
}

func (s *script) base(name string, policy nftables.ChainPolicy, priority nftables.ChainPriority) {
	s.chains[name] = s.conn.AddChain(&nftables.Chain{
		Name: name, Table: s.table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
		Priority: &priority, Policy: &policy,
	})
}

func (s *script) chain(names ...string) {
	for _, name := range names {
		s.chains[name] = s.conn.AddChain(&nftables.Chain{Name: name, Table: s.table})
	}
}

func (s *script) rule(chain string, parts ...[]expr.Any) {
	s.conn.AddRule(&nftables.Rule{Table: s.table, Chain: s.chains[chain], Exprs: slices.Concat(parts...)})
}

func (s *script) insert(chain string, parts ...[]expr.Any) {
	s.conn.InsertRule(&nftables.Rule{Table: s.table, Chain: s.chains[chain], Exprs: slices.Concat(parts...)})
}

func (s *script) load() {
	s.t.Helper()
	if err := s.conn.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

func does(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() []expr.Any            { return does(expr.VerdictAccept, "") }
func jumps(chain string) []expr.Any { return does(expr.VerdictJump, chain) }

// iptablesIn and iptablesOut match an interface the way iptables-nft writes it: the name and one zero.
func iptablesIn(name string) []expr.Any  { return iptablesInterface(expr.MetaKeyIIFNAME, name) }
func iptablesOut(name string) []expr.Any { return iptablesInterface(expr.MetaKeyOIFNAME, name) }

func iptablesInterface(key expr.MetaKey, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte(name + "\x00")},
	}
}

func established() []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: register, Key: expr.CtKeySTATE},
		&expr.Bitwise{
			SourceRegister: register, DestRegister: register, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, 6), Xor: make([]byte, 4), // established, related
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: []byte{0, 0, 0, 0}},
	}
}

func conntrackMatch() []expr.Any {
	info := xt.Unknown(make([]byte, 168))
	return []expr.Any{&expr.Match{Name: "conntrack", Rev: 3, Info: &info}}
}

func docker(t *testing.T, family nftables.TableFamily) *script {
	t.Helper()
	s := newScript(t, family, "filter")
	s.base("FORWARD", nftables.ChainPolicyDrop, 0)
	s.chain("DOCKER", "DOCKER-USER", "DOCKER-FORWARD", "DOCKER-CT")
	s.rule("FORWARD", jumps("DOCKER-USER"))
	s.rule("FORWARD", jumps("DOCKER-FORWARD"))
	s.rule("DOCKER-FORWARD", jumps("DOCKER-CT"))
	s.rule("DOCKER-CT", iptablesOut("docker0"), established(), accept())
	s.rule("DOCKER-FORWARD", iptablesIn("docker0"), accept())
	s.rule("DOCKER", drop())
	return s
}

func ufw(t *testing.T, family nftables.TableFamily, prefix string) *script {
	t.Helper()
	s := newScript(t, family, "filter")
	s.base("FORWARD", nftables.ChainPolicyDrop, 0)
	before, user, reject := prefix+"-before-forward", prefix+"-user-forward", prefix+"-reject-forward"
	s.chain(before, user, reject, prefix+"-before-logging-forward")
	s.rule("FORWARD", jumps(prefix+"-before-logging-forward"))
	s.rule("FORWARD", jumps(before))
	s.rule("FORWARD", jumps(reject))
	s.rule(before, established(), accept())
	s.rule(before, protocolIs(unix.IPPROTO_ICMP), accept())
	s.rule(before, jumps(user))
	return s
}

func dockerOf(family nftables.TableFamily) func(*testing.T) *script {
	return func(t *testing.T) *script { t.Helper(); return docker(t, family) }
}

func ufwOf(family nftables.TableFamily, prefix string) func(*testing.T) *script {
	return func(t *testing.T) *script { t.Helper(); return ufw(t, family, prefix) }
}

func firewalld(t *testing.T) *script {
	t.Helper()
	s := newScript(t, nftables.TableFamilyINet, "firewalld")
	s.base("filter_FORWARD", nftables.ChainPolicyAccept, 10)
	s.chain("filter_FORWARD_POLICIES", "filter_FWD_public", "filter_FWD_trusted")
	s.rule("filter_FORWARD", established(), accept())
	s.rule("filter_FORWARD", []expr.Any{
		&expr.Ct{Register: register, Key: expr.CtKeySTATUS},
		&expr.Bitwise{
			SourceRegister: register, DestRegister: register, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, 0x20), Xor: make([]byte, 4), // dnat
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}, accept())
	s.rule("filter_FORWARD", interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, "lo"), accept())
	s.rule("filter_FORWARD", jumps("filter_FORWARD_POLICIES"))
	s.rule("filter_FORWARD", []expr.Any{
		&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED},
	})
	s.rule("filter_FORWARD_POLICIES", interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, "eth0"),
		jumps("filter_FWD_public"))
	return s
}

func foreignDrops(t *testing.T) []ForeignDrop {
	t.Helper()
	drops, err := ForeignDrops("aether0")
	if err != nil {
		t.Fatal(err)
	}
	return drops
}

// TestForeignDrops builds the rules of well-known owners, wants them found with the right remedy, does what
// the remedy does, and wants them found no more.
func TestForeignDrops(t *testing.T) {
	tests := []struct {
		name   string
		build  func(*testing.T) *script
		want   ForeignDrop
		remedy func(*script)
	}{
		{
			"docker", dockerOf(nftables.TableFamilyIPv4),
			ForeignDrop{
				Family: "ip", Table: "filter", Chain: "FORWARD", Reason: "policy drop", Owner: Docker,
				Remedy: "iptables -I DOCKER-USER -i aether0 -j ACCEPT && iptables -I DOCKER-USER -o aether0 -j ACCEPT",
			},
			func(s *script) {
				s.insert("DOCKER-USER", iptablesIn("aether0"), accept())
				s.insert("DOCKER-USER", iptablesOut("aether0"), accept())
			},
		},
		{
			"docker IPv6", dockerOf(nftables.TableFamilyIPv6),
			ForeignDrop{
				Family: "ip6", Table: "filter", Chain: "FORWARD", Reason: "policy drop", Owner: Docker,
				Remedy: "ip6tables -I DOCKER-USER -i aether0 -j ACCEPT && " +
					"ip6tables -I DOCKER-USER -o aether0 -j ACCEPT",
			},
			func(s *script) {
				s.insert("DOCKER-USER", iptablesIn("aether0"), accept())
				s.insert("DOCKER-USER", iptablesOut("aether0"), accept())
			},
		},
		{
			"ufw", ufwOf(nftables.TableFamilyIPv4, "ufw"),
			ForeignDrop{
				Family: "ip", Table: "filter", Chain: "FORWARD", Reason: "policy drop", Owner: UFW,
				Remedy: "ufw route allow in on aether0 && ufw route allow out on aether0",
			},
			func(s *script) {
				s.rule("ufw-user-forward", iptablesIn("aether0"), accept())
				s.rule("ufw-user-forward", iptablesOut("aether0"), accept())
			},
		},
		{
			"ufw IPv6", ufwOf(nftables.TableFamilyIPv6, "ufw6"),
			ForeignDrop{
				Family: "ip6", Table: "filter", Chain: "FORWARD", Reason: "policy drop", Owner: UFW,
				Remedy: "ufw route allow in on aether0 && ufw route allow out on aether0",
			},
			func(s *script) {
				s.rule("ufw6-user-forward", iptablesIn("aether0"), accept())
				s.rule("ufw6-user-forward", iptablesOut("aether0"), accept())
			},
		},
		{
			"firewalld", firewalld,
			ForeignDrop{
				Family: "inet", Table: "firewalld", Chain: "filter_FORWARD", Reason: "last rule of filter_FORWARD",
				Owner:  Firewalld,
				Remedy: "firewall-cmd --permanent --zone=trusted --add-interface=aether0 && firewall-cmd --reload",
			},
			func(s *script) {
				for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
					s.rule("filter_FORWARD_POLICIES", interfaceIs(key, expr.CmpOpEq, "aether0"),
						does(expr.VerdictGoto, "filter_FWD_trusted"))
				}
				s.rule("filter_FWD_trusted", accept())
			},
		},
		{
			"somebody", func(t *testing.T) *script {
				t.Helper()
				s := newScript(t, nftables.TableFamilyINet, "mine")
				s.base("fwd", nftables.ChainPolicyAccept, 5)
				s.rule("fwd", drop())
				return s
			},
			ForeignDrop{
				Family: "inet", Table: "mine", Chain: "fwd", Reason: "last rule of fwd", Owner: Unknown,
				Remedy: `nft insert rule inet mine fwd iifname "aether0" accept && ` +
					`nft insert rule inet mine fwd oifname "aether0" accept`,
			},
			func(s *script) {
				s.insert("fwd", interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, "aether0"), accept())
				s.insert("fwd", interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, "aether0"), accept())
			},
		},
	}
	for _, test := range tests {
		hosttest.Enter(t)
		s := test.build(t)
		s.load()
		if got := foreignDrops(t); len(got) != 1 || got[0] != test.want {
			t.Errorf("%s: got %+v\nwant %+v", test.name, got, test.want)
		}
		test.remedy(s)
		s.load()
		if got := foreignDrops(t); len(got) > 0 {
			t.Errorf("%s: after the remedy still %v", test.name, got)
		}
	}
}

// TestHalfARemedyIsNotEnough: packets out of the tunnel pass, those into it do not.
func TestHalfARemedyIsNotEnough(t *testing.T) {
	hosttest.Enter(t)
	s := docker(t, nftables.TableFamilyIPv4)
	s.insert("DOCKER-USER", iptablesIn("aether0"), accept())
	s.load()
	if got := foreignDrops(t); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

// TestWhatIsNoForeignDrop: other hooks, our own tables, and drops of some packets only.
func TestWhatIsNoForeignDrop(t *testing.T) {
	hosttest.Enter(t)
	d := one(t)
	d.set(goodPlan())
	ours := newScript(t, nftables.TableFamilyINet, TablePrefix+"0123")
	ours.base("fwd", nftables.ChainPolicyDrop, 0)
	ours.load()
	input := newScript(t, nftables.TableFamilyINet, "input-only")
	policy := nftables.ChainPolicyDrop
	input.conn.AddChain(&nftables.Chain{
		Name: "in", Table: input.table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput,
		Priority: nftables.ChainPriorityFilter, Policy: &policy,
	})
	input.load()
	some := newScript(t, nftables.TableFamilyINet, "some")
	some.base("fwd", nftables.ChainPolicyAccept, 0)
	some.chain("sub")
	some.rule("fwd", protocolIs(unix.IPPROTO_TCP), drop())
	some.rule("fwd", interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, "eth9"), drop())
	some.rule("fwd", conntrackMatch(), drop())
	some.rule("fwd", jumps("sub"))
	some.rule("sub", does(expr.VerdictReturn, ""))
	some.rule("sub", drop())
	some.rule("fwd", interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, "aether0"),
		interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, "aether0"), drop())
	some.load()
	if got := foreignDrops(t); len(got) > 0 {
		t.Errorf("got %v", got)
	}
}

func TestForeignDropSaysItInOneLine(t *testing.T) {
	d := ForeignDrop{
		Family: "ip", Table: "filter", Chain: "FORWARD", Reason: "policy drop", Owner: Docker, Remedy: "do it",
	}
	if line := d.String(); strings.Contains(line, "\n") || !strings.HasSuffix(line, "remedy: do it") {
		t.Errorf("line %q", line)
	}
}

package firewall

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefixes(text ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range text {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(text ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range text {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func goodPlan() Plan {
	return Plan{
		Table: TableName("/var/lib/aetherd"), Device: "aether0", Mark: 0x41000001, Ports: []uint16{4443},
		TunnelPrefixes: prefixes("100.80.0.0/16", "fd80::/48"), OwnAddresses: addrs("100.80.0.1", "fd80::1"),
		Granted: prefixes("10.77.0.0/24", "fd77::/64"),
	}
}

func TestPlanValidate(t *testing.T) {
	if err := goodPlan().Validate(); err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(*Plan){
		"foreign table name": func(p *Plan) { p.Table = "filter" },
		"empty table name":   func(p *Plan) { p.Table = TablePrefix },
		"table not hex":      func(p *Plan) { p.Table = TablePrefix + "xyz" },
		"long table name":    func(p *Plan) { p.Table = TablePrefix + strings.Repeat("a", 100) },
		"no device":          func(p *Plan) { p.Device = "" },
		"long device":        func(p *Plan) { p.Device = "sixteen-letters-" },
		"no mark":            func(p *Plan) { p.Mark = 0 },
		"port 0":             func(p *Plan) { p.Ports = []uint16{0} },
		"host bits":          func(p *Plan) { p.Granted = prefixes("10.0.0.1/8") },
		"mapped address":     func(p *Plan) { p.OwnAddresses = addrs("::ffff:10.0.0.1") },
		"zone":               func(p *Plan) { p.OwnAddresses = addrs("fe80::1%eth0") },
		"invalid prefix":     func(p *Plan) { p.TunnelPrefixes = []netip.Prefix{{}} },
		"too many":           func(p *Plan) { p.Granted = slices.Repeat(p.Granted, maxPlanPrefixes) },
	}
	for name, spoil := range tests {
		p := goodPlan()
		spoil(&p)
		if err := p.Validate(); !errors.Is(err, ErrPlan) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPlanEqual(t *testing.T) {
	a, b := goodPlan(), goodPlan()
	slices.Reverse(b.TunnelPrefixes)
	b.Ports = []uint16{4443, 4443}
	if !a.Equal(b) {
		t.Error("equal plans differ")
	}
	b.Mark++
	if a.Equal(b) {
		t.Error("different plans are equal")
	}
	if TableName("/a") == TableName("/b") {
		t.Error("two state directories share a table name")
	}
}

func TestForwardingSettings(t *testing.T) {
	f := Forwarding{Device: "aether0"}
	tests := []struct {
		name string
		host Host
		want []string
	}{
		{"nothing reached", Host{}, nil},
		{
			"IPv4 per interface, both directions",
			Host{Reach4: []string{"eth1"}},
			[]string{"net/ipv4/conf/aether0/forwarding=1", "net/ipv4/conf/eth1/forwarding=1"},
		},
		{
			"IPv6 per interface, uplinks first",
			Host{Reach6: []string{"eth1"}, ForceForwarding: true, RouterUplinks: []string{"eth0"}},
			[]string{
				"net/ipv6/conf/eth0/accept_ra=2",
				"net/ipv6/conf/aether0/force_forwarding=1", "net/ipv6/conf/eth1/force_forwarding=1",
			},
		},
		{
			"IPv6 for all on older kernels",
			Host{Reach6: []string{"eth1"}, RouterUplinks: []string{"eth0"}},
			[]string{"net/ipv6/conf/eth0/accept_ra=2", "net/ipv6/conf/all/forwarding=1"},
		},
		{"IPv4 alone leaves IPv6", Host{Reach4: []string{"aether0"}, RouterUplinks: []string{"eth0"}}, []string{
			"net/ipv4/conf/aether0/forwarding=1",
		}},
	}
	for _, test := range tests {
		var got []string
		for _, s := range f.Settings(test.host) {
			if err := s.Validate(); err != nil {
				t.Error(err)
			}
			got = append(got, s.Key+"="+s.Value)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

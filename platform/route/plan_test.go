package route

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
)

func prefixes(text ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range text {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func goodPlan() Plan {
	return Plan{
		Device: "aether0", MTU: 1420, TxQueuePackets: 500,
		Addresses: prefixes("100.80.0.2/16", "fd80::2/48"),
		Routes: []Route{
			{Prefix: netip.MustParsePrefix("100.80.0.0/16")},
			{Prefix: netip.MustParsePrefix("fd80::/48")},
			{Prefix: netip.MustParsePrefix("10.77.0.0/24"), Metric: 50},
		},
		Guards:    prefixes("100.80.0.0/16", "fd80::/48"),
		Selectors: Selectors{Table: 123456, Mark: 0x41000001, Priority: 2000},
	}
}

func TestPlanValidate(t *testing.T) {
	if err := goodPlan().Validate(); err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(*Plan){
		"no device":        func(p *Plan) { p.Device = "" },
		"long device":      func(p *Plan) { p.Device = "sixteen-letters-" },
		"no mtu":           func(p *Plan) { p.MTU = 0 },
		"huge mtu":         func(p *Plan) { p.MTU = 65536 },
		"main table":       func(p *Plan) { p.Table = 254 },
		"huge table":       func(p *Plan) { p.Table = 1 << 31 },
		"no mark":          func(p *Plan) { p.Mark = 0 },
		"after main":       func(p *Plan) { p.Priority = 32766 },
		"before local":     func(p *Plan) { p.Priority = 0 },
		"invalid address":  func(p *Plan) { p.Addresses = []netip.Prefix{{}} },
		"mapped address":   func(p *Plan) { p.Addresses = prefixes("::ffff:1.2.3.4/128") },
		"host bits":        func(p *Plan) { p.Routes = []Route{{Prefix: netip.MustParsePrefix("10.0.0.1/8")}} },
		"metric of guards": func(p *Plan) { p.Routes[0].Metric = GuardMetric },
		"guard host bits":  func(p *Plan) { p.Guards = prefixes("10.0.0.1/8") },
		"negative queue":   func(p *Plan) { p.TxQueuePackets = -1 },
		"too many": func(p *Plan) {
			p.Guards = slices.Repeat(prefixes("10.0.0.0/8"), maxPlanPrefixes)
		},
	}
	for name, spoil := range tests {
		p := goodPlan()
		spoil(&p)
		if err := p.Validate(); !errors.Is(err, ErrPlan) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPlanEqualIgnoresOrderAndDefaults(t *testing.T) {
	a, b := goodPlan(), goodPlan()
	slices.Reverse(b.Addresses)
	slices.Reverse(b.Routes)
	b.Routes[2].Metric = DefaultMetric
	b.Guards = append(b.Guards, b.Guards[0])
	if !a.Equal(b) {
		t.Error("equal plans differ")
	}
	b.Routes[0].Metric++
	if a.Equal(b) {
		t.Error("different plans are equal")
	}
}

func TestKindOf(t *testing.T) {
	tests := map[string]AddressKind{
		"192.168.1.2": Private, "10.0.0.1": Private, "172.31.0.1": Private, "100.64.0.1": Shared, "100.128.0.1": Global,
		"8.8.8.8": Global, "fd00::1": UniqueLocal, "2001:db8::1": Global, "127.0.0.1": "", "::1": "",
		"169.254.1.1": "", "fe80::1": "", "224.0.0.1": "", "ff02::1": "", "0.0.0.0": "", "::": "", "240.0.0.1": "",
		"255.255.255.255": "", "::ffff:10.0.0.1": "", "0.1.2.3": "",
	}
	for text, want := range tests {
		got, ok := KindOf(netip.MustParseAddr(text))
		if got != want || ok != (want != "") {
			t.Errorf("%s: %q %v, want %q", text, got, ok, want)
		}
	}
}

func TestConflicts(t *testing.T) {
	networks := []connectedNetwork{
		{netip.MustParsePrefix("100.80.4.0/24"), "eth0"},
		{netip.MustParsePrefix("100.80.5.0/24"), "eth0"},
		{netip.MustParsePrefix("fd80::/64"), "eth1"},
	}
	got := conflicts(prefixes("100.80.0.0/16", "fd80::/48", "10.0.0.0/8", "0.0.0.0/0"), networks)
	want := []Conflict{
		{netip.MustParsePrefix("100.80.0.0/16"), netip.MustParsePrefix("100.80.4.0/24"), "eth0"},
		{netip.MustParsePrefix("fd80::/48"), netip.MustParsePrefix("fd80::/64"), "eth1"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCandidatesAreUsable(t *testing.T) {
	seen := map[Selectors]bool{}
	for n := range chooseTries {
		s := candidate("/var/lib/aetherd", n)
		if !validSelectors(s) || s.Mark&0xc000 != 0 || s.Mark&0x0f00 != 0 || s.Mark&0xff0000 != 0 {
			t.Fatalf("candidate %d: %+v", n, s)
		}
		seen[s] = true
	}
	if len(seen) != chooseTries {
		t.Errorf("%d different candidates of %d", len(seen), chooseTries)
	}
}

func TestChoose(t *testing.T) {
	first, second := candidate("/s", 0), candidate("/s", 1)
	none := usage{tables: map[uint32]bool{}, priorities: map[uint32]bool{}}
	marked := none
	marked.marks = []markUse{{mark: first.Mark & 0xff, mask: 0xff}}
	remembered := Selectors{Table: 4242, Mark: 7, Priority: 9}
	tests := []struct {
		name       string
		remembered Selectors
		taken      usage
		want       Selectors
	}{
		{"all free", Selectors{}, none, first},
		{"remembered", remembered, none, remembered},
		{"remembered is nonsense", Selectors{Table: 254, Mark: 7, Priority: 9}, none, first},
		{"remembered is taken", remembered, usage{tables: map[uint32]bool{4242: true}}, first},
		{"table taken", Selectors{}, usage{tables: map[uint32]bool{first.Table: true}}, second},
		{"priority taken", Selectors{}, usage{priorities: map[uint32]bool{first.Priority: true}}, second},
	}
	for _, test := range tests {
		got, err := choose("/s", test.remembered, test.taken)
		if err != nil || got != test.want {
			t.Errorf("%s: %+v, %v; want %+v", test.name, got, err, test.want)
		}
	}
	if got, err := choose("/s", Selectors{}, marked); err != nil || got == first {
		t.Errorf("a mark that another rule selects was chosen: %+v, %v", got, err)
	}
	all := usage{marks: []markUse{{mark: 0x40000000, mask: 0x40000000}}}
	if _, err := choose("/s", Selectors{}, all); !errors.Is(err, ErrNoSelectors) {
		t.Errorf("nothing free: %v", err)
	}
}

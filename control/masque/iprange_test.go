package masque

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func TestPrefixesToRanges(t *testing.T) {
	for name, c := range map[string]struct {
		prefixes []netip.Prefix
		want     []IPRange
	}{
		"none": {nil, nil},
		"everything": {prefixes("::/0", "0.0.0.0/0"), []IPRange{
			ipRange("0.0.0.0", "255.255.255.255", 0),
			ipRange("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 0),
		}},
		"masked":    {prefixes("10.1.2.3/8"), []IPRange{ipRange("10.0.0.0", "10.255.255.255", 0)}},
		"adjacent":  {prefixes("10.0.1.0/24", "10.0.0.0/24"), []IPRange{ipRange("10.0.0.0", "10.0.1.255", 0)}},
		"contained": {prefixes("10.0.0.0/8", "10.0.1.0/24"), []IPRange{ipRange("10.0.0.0", "10.255.255.255", 0)}},
		"apart": {prefixes("10.0.2.0/24", "10.0.0.0/24", "fd00::7/128"), []IPRange{
			ipRange("10.0.0.0", "10.0.0.255", 0), ipRange("10.0.2.0", "10.0.2.255", 0),
			ipRange("fd00::7", "fd00::7", 0),
		}},
		"families touch": {prefixes("255.255.255.255/32", "::/128"), []IPRange{
			ipRange("255.255.255.255", "255.255.255.255", 0), ipRange("::", "::", 0),
		}},
	} {
		got, err := PrefixesToRanges(c.prefixes)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := PrefixesToRanges([]netip.Prefix{{}}); err == nil {
		t.Error("the zero prefix was taken")
	}
}

func TestNormalizeRangesProtocols(t *testing.T) {
	in := []IPRange{
		ipRange("10.0.0.0", "10.0.0.99", 17),
		ipRange("10.0.0.20", "10.0.0.29", 0),
		ipRange("10.0.0.0", "10.0.0.9", 0),
		ipRange("10.0.0.90", "10.0.0.120", 0),
		ipRange("10.0.0.0", "10.0.0.5", 6),
	}
	want := []IPRange{
		ipRange("10.0.0.0", "10.0.0.9", 0),
		ipRange("10.0.0.20", "10.0.0.29", 0),
		ipRange("10.0.0.90", "10.0.0.120", 0),
		ipRange("10.0.0.10", "10.0.0.19", 17),
		ipRange("10.0.0.30", "10.0.0.89", 17),
	}
	got, err := NormalizeRanges(in)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	if in[0] != ipRange("10.0.0.0", "10.0.0.99", 17) {
		t.Error("the argument was changed")
	}
}

// A range of one family takes nothing from the other.
func TestNormalizeRangesFamilies(t *testing.T) {
	all6 := ipRange("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 6)
	all4 := ipRange("0.0.0.0", "255.255.255.255", 0)
	got, err := NormalizeRanges([]IPRange{all6, all4, ipRange("::5", "::6", 0)})
	want := []IPRange{
		all4, ipRange("::5", "::6", 0),
		ipRange("::", "::4", 6),
		{Start: netip.MustParseAddr("::7"), End: all6.End, Protocol: 6},
	}
	if err != nil || !slices.Equal(got, want) || validateRanges(got) != nil {
		t.Fatalf("got %v, %v", got, err)
	}
}

// TestNormalizeRangesModel compares the normal form with a bitmap over a small space.
func TestNormalizeRangesModel(t *testing.T) {
	const space = 40
	rng := rand.New(rand.NewPCG(1, 2))
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	for range 2000 {
		var in []IPRange
		var allowed [3][space]bool // by protocol, 0 for all
		for range rng.IntN(8) {
			a, b, protocol := rng.IntN(space), rng.IntN(space), rng.IntN(3)
			a, b = min(a, b), max(a, b)
			in = append(in, IPRange{Start: addr(a), End: addr(b), Protocol: uint8(protocol)})
			for i := a; i <= b; i++ {
				allowed[protocol][i] = true
			}
		}
		out, err := NormalizeRanges(in)
		if err != nil || validateRanges(out) != nil {
			t.Fatalf("%v gives %v, %v", in, out, err)
		}
		for protocol := uint8(1); protocol < 3; protocol++ {
			for i := range space {
				want := allowed[0][i] || allowed[protocol][i]
				got := slices.ContainsFunc(out, func(r IPRange) bool {
					return (r.Protocol == 0 || r.Protocol == protocol) && !addr(i).Less(r.Start) && !r.End.Less(addr(i))
				})
				if got != want {
					t.Fatalf("%v gives %v: address %d protocol %d is %t", in, out, i, protocol, got)
				}
			}
		}
	}
}

func TestRangesToPrefixes(t *testing.T) {
	all6 := "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
	for name, c := range map[string]struct {
		r    IPRange
		want []netip.Prefix
	}{
		"everything 4": {ipRange("0.0.0.0", "255.255.255.255", 0), prefixes("0.0.0.0/0")},
		"everything 6": {ipRange("::", all6, 0), prefixes("::/0")},
		"one":          {ipRange("10.0.0.1", "10.0.0.1", 0), prefixes("10.0.0.1/32")},
		"unaligned":    {ipRange("10.0.0.1", "10.0.0.4", 0), prefixes("10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32")},
		"to the end":   {ipRange("255.255.255.254", "255.255.255.255", 0), prefixes("255.255.255.254/31")},
	} {
		got, err := RangesToPrefixes([]IPRange{c.r}, 254)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	worst := []IPRange{ipRange("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 0)}
	if p, err := RangesToPrefixes(worst, 254); err != nil || len(p) != 254 {
		t.Errorf("worst range: %d prefixes, %v", len(p), err)
	}
	if _, err := RangesToPrefixes(worst, 253); err == nil {
		t.Error("the limit was not kept")
	}
}

func FuzzRangesToPrefixes(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, []byte{10, 0, 0, 200})
	f.Add(make([]byte, 16), slices.Repeat([]byte{255}, 16))
	f.Fuzz(func(t *testing.T, start, end []byte) {
		a, okA := netip.AddrFromSlice(start)
		b, okB := netip.AddrFromSlice(end)
		r := IPRange{Start: a, End: b}
		if !okA || !okB || !r.valid() {
			return
		}
		p, err := RangesToPrefixes([]IPRange{r}, 254)
		if err != nil {
			t.Fatal(err)
		}
		at := a
		for i, p := range p {
			if p != p.Masked() || p.Addr() != at {
				t.Fatalf("prefix %d of %v is %v, want one at %v", i, r, p, at)
			}
			at = lastAddr(p).Next()
		}
		if last := lastAddr(p[len(p)-1]); last != b {
			t.Fatalf("%v ends at %v", r, last)
		}
		if a.Is4In6() {
			return
		}
		if back, err := PrefixesToRanges(p); err == nil && (len(back) != 1 || back[0] != r) {
			t.Fatalf("%v became %v", r, back)
		}
	})
}

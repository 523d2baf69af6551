package route

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// scan is the slow model: the longest of all prefixes that contain the address.
func scan(entries []Entry[int], a netip.Addr) (int, bool) {
	best, value := -1, 0
	for _, e := range entries {
		if e.Prefix.Contains(a) && e.Prefix.Bits() > best {
			best, value = e.Prefix.Bits(), e.Value
		}
	}
	return value, best >= 0
}

func randomAddr(rng *rand.Rand) netip.Addr {
	if rng.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10, byte(rng.IntN(2)), byte(rng.IntN(4)), byte(rng.IntN(256))})
	}
	var b [16]byte
	b[0], b[7], b[15] = 0xfd, byte(rng.IntN(4)), byte(rng.IntN(256))
	return netip.AddrFrom16(b)
}

func TestLookupAgreesWithScan(t *testing.T) {
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, seed))
	for range 200 {
		seen := map[netip.Prefix]bool{}
		var entries []Entry[int]
		for i := range rng.IntN(60) {
			a := randomAddr(rng)
			p := netip.PrefixFrom(a, rng.IntN(a.BitLen()+1)).Masked()
			if !seen[p] {
				seen[p] = true
				entries = append(entries, Entry[int]{p, i})
			}
		}
		table, err := New(entries)
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			a := randomAddr(rng)
			got, ok := table.Lookup(a)
			want, wantOK := scan(entries, a)
			if got != want || ok != wantOK {
				t.Fatalf("seed %d: Lookup(%v) = %d, %v; scan says %d, %v in %v", seed, a, got, ok, want, wantOK, entries)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	p := netip.MustParsePrefix("10.0.0.1/8")
	for name, entries := range map[string][]Entry[int]{
		"doubled":      {{p, 1}, {netip.MustParsePrefix("10.0.0.0/8"), 2}},
		"zero":         {{netip.Prefix{}, 1}},
		"IPv4 in IPv6": {{netip.MustParsePrefix("::ffff:10.0.0.0/104"), 1}},
	} {
		if _, err := New(entries); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestZeroTableAndInvalidAddress(t *testing.T) {
	var zero Table[int]
	if _, ok := zero.Lookup(netip.MustParseAddr("10.0.0.1")); ok {
		t.Error("the zero table has an answer")
	}
	table, err := New([]Entry[int]{{netip.MustParsePrefix("::/0"), 1}})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := table.Lookup(netip.Addr{}); ok {
		t.Error("the invalid address has a route")
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	table, err := New([]Entry[int]{{netip.MustParsePrefix("10.0.0.0/8"), 1}, {netip.MustParsePrefix("fd00::/8"), 2}})
	if err != nil {
		t.Fatal(err)
	}
	v4, v6 := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd01::1")
	if n := testing.AllocsPerRun(100, func() { table.Lookup(v4); table.Lookup(v6) }); n != 0 {
		t.Errorf("%v allocations per run", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	var entries []Entry[int]
	for i := range 10000 {
		a := netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
		entries = append(entries, Entry[int]{netip.PrefixFrom(a, 32), i})
	}
	entries = append(entries, Entry[int]{netip.MustParsePrefix("192.168.0.0/24"), -1})
	table, err := New(entries)
	if err != nil {
		b.Fatal(err)
	}
	a := netip.MustParseAddr("192.168.0.7")
	for b.Loop() {
		table.Lookup(a)
	}
}

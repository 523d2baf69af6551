package masque

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
)

func ipRange(start, end string, protocol uint8) IPRange {
	return IPRange{Start: netip.MustParseAddr(start), End: netip.MustParseAddr(end), Protocol: protocol}
}

// RFC 9484 section 4.7.3 gives the wire format; the bytes are written out by hand.
func TestRFC9484Section4_7_3Format(t *testing.T) {
	body := mustHex(t, "04"+"c0000200"+"c0000229"+"00"+"04"+"c000022b"+"c00002ff"+"00"+
		"06"+"20010db8345600000000000000000000"+"20010db834560000000000000000000b"+"84")
	want := []IPRange{
		ipRange("192.0.2.0", "192.0.2.41", 0),
		ipRange("192.0.2.43", "192.0.2.255", 0),
		ipRange("2001:db8:3456::", "2001:db8:3456::b", 132),
	}
	got, err := ParseRouteAdvertisement(body)
	if err != nil || !slices.Equal(got.Ranges, want) {
		t.Fatalf("parsed %v, %v", got, err)
	}
	back, err := AppendRouteAdvertisement(nil, got)
	if err != nil || !bytes.Equal(back, body) {
		t.Fatalf("encoded %x, %v", back, err)
	}
	if empty, err := ParseRouteAdvertisement(nil); err != nil || len(empty.Ranges) != 0 {
		t.Fatalf("empty: %v, %v", empty, err)
	}
}

// orderCases are lists that follow or break the rules of RFC 9484 section 4.7.3.
func orderCases() map[string]struct {
	ok     bool
	ranges []IPRange
} {
	low, high := ipRange("10.0.0.0", "10.0.0.9", 0), ipRange("10.0.1.0", "10.0.1.9", 0)
	only := func(r IPRange, protocol uint8) IPRange { r.Protocol = protocol; return r }
	part := ipRange("10.0.0.5", "10.0.0.6", 0)
	return map[string]struct {
		ok     bool
		ranges []IPRange
	}{
		"adjacent":          {true, []IPRange{low, ipRange("10.0.0.10", "10.0.0.20", 0)}},
		"one address":       {true, []IPRange{ipRange("10.0.0.1", "10.0.0.1", 0)}},
		"everything":        {true, []IPRange{ipRange("0.0.0.0", "255.255.255.255", 0), ipRange("::", "ff::", 0)}},
		"two protocols":     {true, []IPRange{only(low, 6), only(low, 17)}},
		"version descends":  {false, []IPRange{ipRange("::1", "::2", 0), low}},
		"protocol descends": {false, []IPRange{only(low, 17), only(high, 6)}},
		"address descends":  {false, []IPRange{high, low}},
		"overlap":           {false, []IPRange{low, ipRange("10.0.0.9", "10.0.0.20", 0)}},
		"same twice":        {false, []IPRange{ipRange("::1", "::2", 6), ipRange("::1", "::2", 6)}},
		"end before start":  {false, []IPRange{ipRange("10.0.0.9", "10.0.0.0", 0)}},
		"within all":        {false, []IPRange{low, only(part, 6)}},
		"around all":        {false, []IPRange{part, only(low, 6)}},
		"beside all":        {true, []IPRange{part, ipRange("10.0.0.7", "10.0.0.9", 6)}},
		"second protocol too": {false, []IPRange{
			ipRange("::5", "::6", 0), ipRange("::7", "::9", 6), ipRange("::1", "::5", 17),
		}},
		"other version only": {true, []IPRange{ipRange("0.0.0.0", "9.9.9.9", 0), ipRange("::5", "::6", 6)}},
	}
}

// RFC 9484 section 4.7.3: ranges out of order or overlapping are neither taken nor
// sent, also if the overlap is with a range for all protocols.
func TestRFC9484Section4_7_3Order(t *testing.T) {
	for name, c := range orderCases() {
		_, err := AppendRouteAdvertisement(nil, RouteAdvertisement{Ranges: c.ranges})
		if (err == nil) != c.ok {
			t.Errorf("%s: encoded with %v", name, err)
		}
		var body []byte
		for _, r := range c.ranges {
			body = append(body, versionOf(r.Start))
			body = append(body, r.Start.AsSlice()...)
			body = append(append(body, r.End.AsSlice()...), r.Protocol)
		}
		_, err = ParseRouteAdvertisement(body)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, errMalformed) {
			t.Errorf("%s: parsed with %v", name, err)
		}
	}
}

func TestRFC9484Section4_7_3Malformed(t *testing.T) {
	for name, body := range map[string]string{
		"ip version 5":    "05c0000200c000022900",
		"truncated start": "04c00002",
		"truncated end":   "04c0000200c00002",
		"no protocol":     "04c0000200c0000229",
		"truncated ipv6":  "0620010db8345600000000000000000000" + "20010db8",
	} {
		if r, err := ParseRouteAdvertisement(mustHex(t, body)); !errors.Is(err, errMalformed) {
			t.Errorf("%s: parsed %v, %v", name, r, err)
		}
	}
}

func TestRouteLimit(t *testing.T) {
	var ranges []IPRange
	at := netip.MustParseAddr("10.0.0.0")
	for range MaxRouteRanges + 1 {
		ranges = append(ranges, IPRange{Start: at, End: at})
		at = at.Next()
	}
	body, err := AppendRouteAdvertisement(nil, RouteAdvertisement{Ranges: ranges[:MaxRouteRanges]})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseRouteAdvertisement(body); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	_, err = AppendRouteAdvertisement(nil, RouteAdvertisement{Ranges: ranges})
	if !errors.Is(err, errExcessive) {
		t.Errorf("encoded beyond the limit: %v", err)
	}
	body = append(body, mustHex(t, "04ffff0000ffff000000")...)
	if _, err := ParseRouteAdvertisement(body); !errors.Is(err, errExcessive) {
		t.Errorf("beyond the limit: %v", err)
	}
}

func FuzzParseRouteAdvertisement(f *testing.F) {
	f.Add([]byte{})
	f.Add(mustHex(f, "04c0000200c00002290004c000022bc00002ff00"))
	f.Add(mustHex(f, "0620010db834560000000000000000000020010db834560000000000000000000b84"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := ParseRouteAdvertisement(body)
		if err != nil {
			return
		}
		if len(r.Ranges) > MaxRouteRanges {
			t.Fatalf("%d ranges", len(r.Ranges))
		}
		b, err := AppendRouteAdvertisement(nil, r)
		if err != nil || !bytes.Equal(b, body) {
			t.Fatalf("%x became %x, %v", body, b, err)
		}
		// What may stand in a capsule is in its normal form but for joins.
		n, err := NormalizeRanges(r.Ranges)
		if err != nil || len(n) > len(r.Ranges) || validateRanges(n) != nil {
			t.Fatalf("%v normalizes to %v, %v", r.Ranges, n, err)
		}
	})
}

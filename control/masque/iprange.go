package masque

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
)

// PrefixesToRanges returns ranges for all protocols that cover exactly the given
// prefixes, in the order and without the overlaps that RFC 9484 section 4.7.3
// demands of a sender; adjacent ranges are joined. Prefixes are masked first; an
// invalid one or one of an IPv4-mapped address is an error.
func PrefixesToRanges(prefixes []netip.Prefix) ([]IPRange, error) {
	ranges := make([]IPRange, 0, len(prefixes))
	for _, p := range prefixes {
		if p = p.Masked(); !validPrefix(p) {
			return nil, fmt.Errorf("route %v: invalid prefix", p)
		}
		ranges = append(ranges, IPRange{Start: p.Addr(), End: lastAddr(p)})
	}
	return NormalizeRanges(ranges)
}

// NormalizeRanges sorts and joins ranges into what a ROUTE_ADVERTISEMENT may carry.
// Parts of a range for one protocol that a range for all protocols covers already
// are left out. The argument is not changed.
func NormalizeRanges(ranges []IPRange) ([]IPRange, error) {
	for _, r := range ranges {
		if !r.valid() {
			return nil, fmt.Errorf("route %v-%v: invalid range", r.Start, r.End)
		}
	}
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b IPRange) int {
		if c := int(versionOf(a.Start)) - int(versionOf(b.Start)); c != 0 {
			return c
		}
		if c := int(a.Protocol) - int(b.Protocol); c != 0 {
			return c
		}
		return a.Start.Compare(b.Start)
	})
	var out, all []IPRange // all protocols come first within a version
	for _, r := range joinRanges(sorted) {
		if r.Protocol == 0 {
			all = append(all, r)
			out = append(out, r)
			continue
		}
		out = append(out, subtractRanges(r, all)...)
	}
	return out, nil
}

// joinRanges joins overlapping and adjacent neighbours of a sorted list, in place.
func joinRanges(sorted []IPRange) []IPRange {
	out := sorted[:0]
	for _, r := range sorted {
		if n := len(out); n > 0 {
			last := &out[n-1]
			sameKind := last.Protocol == r.Protocol && last.Start.Is4() == r.Start.Is4()
			// Next is invalid after the last address of a family: nothing follows it.
			touches := !last.End.Less(r.Start) || last.End.Next() == r.Start
			if sameKind && touches {
				if last.End.Less(r.End) {
					last.End = r.End
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// subtractRanges returns the parts of r outside the sorted, disjoint ranges of all.
func subtractRanges(r IPRange, all []IPRange) []IPRange {
	var out []IPRange
	for _, a := range all {
		if a.End.Less(r.Start) {
			continue
		}
		if r.End.Less(a.Start) {
			break
		}
		if r.Start.Less(a.Start) {
			out = append(out, IPRange{Start: r.Start, End: a.Start.Prev(), Protocol: r.Protocol})
		}
		if !a.End.Less(r.End) {
			return out
		}
		r.Start = a.End.Next()
	}
	return append(out, r)
}

// RangesToPrefixes returns the fewest prefixes that cover exactly the ranges, in
// their order; protocols are not looked at. One range may need 62 prefixes (IPv4)
// or 254 (IPv6): more than maxPrefixes in all is an error, since the ranges are
// the peer's.
func RangesToPrefixes(ranges []IPRange, maxPrefixes int) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, r := range ranges {
		if !r.valid() {
			return nil, fmt.Errorf("route %v-%v: invalid range", r.Start, r.End)
		}
		for at := r.Start; ; {
			if len(out) == maxPrefixes {
				return nil, fmt.Errorf("routes need more than %d prefixes", maxPrefixes)
			}
			p := largestPrefix(at, r.End)
			out = append(out, p)
			last := lastAddr(p)
			if last == r.End {
				break
			}
			at = last.Next()
		}
	}
	return out, nil
}

// largestPrefix returns the largest prefix that begins at start and does not go
// beyond end.
func largestPrefix(start, end netip.Addr) netip.Prefix {
	length := start.BitLen() - trailingZeroBits(start)
	for {
		p := netip.PrefixFrom(start, length)
		if !end.Less(lastAddr(p)) {
			return p
		}
		length++
	}
}

// trailingZeroBits counts the zero bits at the end of an address.
func trailingZeroBits(a netip.Addr) int {
	zeros := 0
	b := a.AsSlice()
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0 {
			return zeros + bits.TrailingZeros8(b[i])
		}
		zeros += 8
	}
	return zeros
}

// lastAddr returns the last address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		free := min(max(8*(i+1)-p.Bits(), 0), 8)
		b[i] |= byte(1<<free - 1)
	}
	if p.Addr().Is4() {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b))
}

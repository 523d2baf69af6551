package masque

import (
	"fmt"
	"net/netip"
)

// MaxRouteRanges is the largest number of entries in a ROUTE_ADVERTISEMENT capsule
// that is taken or sent. A body of MaxCapsuleBytes holds fewer of IPv6.
const MaxRouteRanges = 4096

// IPRange is one entry of a ROUTE_ADVERTISEMENT capsule (RFC 9484 figure 12).
type IPRange struct {
	// Start and End are the first and last address, of one family.
	Start, End netip.Addr
	// Protocol is the Internet Protocol Number that may be sent there, 0 for all.
	// ICMP may always be sent.
	Protocol uint8
}

// RouteAdvertisement is the content of a ROUTE_ADVERTISEMENT capsule: the whole list
// of ranges the sender routes from now on. What it does not contain is withdrawn.
type RouteAdvertisement struct {
	// Ranges are ordered and do not overlap, as RFC 9484 section 4.7.3 requires.
	Ranges []IPRange
}

// ParseRouteAdvertisement parses the body of a ROUTE_ADVERTISEMENT capsule. Ranges
// out of order or overlapping make it malformed (RFC 9484 section 4.7.3).
func ParseRouteAdvertisement(body []byte) (RouteAdvertisement, error) {
	var r RouteAdvertisement
	for len(body) > 0 {
		if len(r.Ranges) == MaxRouteRanges {
			return RouteAdvertisement{}, fmt.Errorf("route advertisement: %w", errExcessive)
		}
		e, rest, err := parseIPRange(body)
		if err != nil {
			return RouteAdvertisement{}, fmt.Errorf("route advertisement: %w", err)
		}
		r.Ranges, body = append(r.Ranges, e), rest
	}
	if err := validateRanges(r.Ranges); err != nil {
		return RouteAdvertisement{}, fmt.Errorf("route advertisement: %w: %w", errMalformed, err)
	}
	return r, nil
}

// AppendRouteAdvertisement appends the body of a ROUTE_ADVERTISEMENT capsule. The
// ranges have to be ordered already: see [PrefixesToRanges].
func AppendRouteAdvertisement(dst []byte, r RouteAdvertisement) ([]byte, error) {
	if len(r.Ranges) > MaxRouteRanges {
		return nil, fmt.Errorf("route advertisement: %d entries: %w", len(r.Ranges), errExcessive)
	}
	if err := validateRanges(r.Ranges); err != nil {
		return nil, fmt.Errorf("route advertisement: %w", err)
	}
	for _, e := range r.Ranges {
		dst = append(dst, versionOf(e.Start))
		dst = append(dst, e.Start.AsSlice()...)
		dst = append(dst, e.End.AsSlice()...)
		dst = append(dst, e.Protocol)
	}
	return dst, nil
}

// parseIPRange splits one entry off b, which is not empty.
func parseIPRange(b []byte) (IPRange, []byte, error) {
	version := b[0]
	start, b, err := parseAddr(version, b[1:])
	if err != nil {
		return IPRange{}, nil, err
	}
	end, b, err := parseAddr(version, b)
	if err != nil {
		return IPRange{}, nil, err
	}
	if len(b) == 0 {
		return IPRange{}, nil, fmt.Errorf("%w: truncated range", errMalformed)
	}
	return IPRange{Start: start, End: end, Protocol: b[0]}, b[1:], nil
}

// validateRanges checks each range, the order, and that no range for one protocol
// overlaps one for all protocols.
func validateRanges(ranges []IPRange) error {
	for i, r := range ranges {
		if !r.valid() {
			return fmt.Errorf("invalid range %v-%v", r.Start, r.End)
		}
		if i > 0 && !ranges[i-1].precedes(r) {
			return fmt.Errorf("range %v-%v out of order", r.Start, r.End)
		}
	}
	// Ranges for all protocols come first within a version, sorted by address: walk
	// them beside those of each single protocol. Those of IPv4 sort before any of IPv6
	// and are passed over there.
	var all []IPRange
	next := 0
	for i, r := range ranges {
		if r.Protocol == 0 {
			all = append(all, r)
			continue
		}
		if i > 0 && (ranges[i-1].Protocol != r.Protocol || ranges[i-1].Start.Is4() != r.Start.Is4()) {
			next = 0
		}
		for next < len(all) && all[next].End.Less(r.Start) {
			next++
		}
		if next < len(all) && !r.End.Less(all[next].Start) {
			return fmt.Errorf("range %v-%v overlaps one for all protocols", r.Start, r.End)
		}
	}
	return nil
}

// valid reports whether r is a range of one family.
func (r IPRange) valid() bool {
	return r.Start.IsValid() && r.End.IsValid() && r.Start.Zone() == "" && r.End.Zone() == "" &&
		r.Start.Is4() == r.End.Is4() && !r.End.Less(r.Start)
}

// precedes is the order of RFC 9484 section 4.7.3: version, protocol, address.
func (r IPRange) precedes(next IPRange) bool {
	if a, b := versionOf(r.Start), versionOf(next.Start); a != b {
		return a < b
	}
	if r.Protocol != next.Protocol {
		return r.Protocol < next.Protocol
	}
	return r.End.Less(next.Start)
}

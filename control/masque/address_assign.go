package masque

import (
	"fmt"
	"net/netip"

	"github.com/quic-go/quic-go/quicvarint"
)

// AssignedAddress is one entry of an ADDRESS_ASSIGN capsule (RFC 9484 figure 8).
type AssignedAddress struct {
	// RequestID is that of the answered request, 0 if there is none.
	RequestID uint64
	// Prefix is what the receiver may use as source address. Bits below the
	// prefix length are zero.
	Prefix netip.Prefix
}

// Rejected reports whether the entry says that no address was assigned.
func (a AssignedAddress) Rejected() bool {
	return a.Prefix.IsValid() && a.Prefix == rejection(a.Prefix.Addr())
}

// AddressAssignment is the content of an ADDRESS_ASSIGN capsule: the whole list of
// prefixes the sender assigns to the receiver from now on. What it does not contain
// is withdrawn (RFC 9484 section 4.7.1).
type AddressAssignment struct {
	Addresses []AssignedAddress
}

// Prefixes returns the assigned prefixes without the rejections.
func (a AddressAssignment) Prefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, e := range a.Addresses {
		if !e.Rejected() {
			out = append(out, e.Prefix)
		}
	}
	return out
}

// ParseAddressAssign parses the body of an ADDRESS_ASSIGN capsule. Entries whose
// prefix is malformed (too long, bits set below it, IPv4-mapped) are left out and
// counted, so that a mistake in one family does not cost the other; if no other
// entry remains, or an entry's end cannot be told, the capsule is malformed.
func ParseAddressAssign(body []byte) (a AddressAssignment, malformedEntries int, err error) {
	entries := 0
	for len(body) > 0 {
		if entries++; entries > MaxAddressEntries {
			return AddressAssignment{}, 0, fmt.Errorf("address assign: %w", errExcessive)
		}
		var e addressEntry
		if e, body, err = parseAddressEntry(body); err != nil {
			return AddressAssignment{}, 0, fmt.Errorf("address assign: %w", err)
		}
		p, ok := e.prefix()
		if !ok {
			malformedEntries++
			continue
		}
		a.Addresses = append(a.Addresses, AssignedAddress{RequestID: e.requestID, Prefix: p})
	}
	if malformedEntries > 0 && len(a.Addresses) == 0 {
		return AddressAssignment{}, 0, fmt.Errorf("address assign: %w: no valid prefix", errMalformed)
	}
	return a, malformedEntries, nil
}

// AppendAddressAssign appends the body of an ADDRESS_ASSIGN capsule. It refuses
// what ParseAddressAssign would not take whole.
func AppendAddressAssign(dst []byte, a AddressAssignment) ([]byte, error) {
	if len(a.Addresses) > MaxAddressEntries {
		return nil, fmt.Errorf("address assign: %d entries: %w", len(a.Addresses), errExcessive)
	}
	for _, e := range a.Addresses {
		if e.RequestID > quicvarint.Max || !validPrefix(e.Prefix) {
			return nil, fmt.Errorf("address assign: invalid entry %d %v", e.RequestID, e.Prefix)
		}
		dst = appendAddressEntry(dst, e.RequestID, e.Prefix)
	}
	return dst, nil
}

// Assign returns the ADDRESS_ASSIGN that answers request when the peer owns
// exactly the given prefixes: every prefix once, and every Requested Address
// answered under its ID, with a rejection where nothing of its family is left
// (RFC 9484 section 4.7.2). A request for a particular prefix gets it if it is
// owned; any other gets the next owned prefix of the family. The zero request
// gives the unprompted list. Use the result of a later call without request for
// later lists: rejections are not repeated.
func Assign(owned []netip.Prefix, request AddressRequest) AddressAssignment {
	ids := make([]uint64, len(owned))
	granted := make([]bool, len(request.Requests))
	take := func(r int, fits func(netip.Prefix) bool) {
		for i, p := range owned {
			if !granted[r] && ids[i] == 0 && fits(p) {
				ids[i], granted[r] = request.Requests[r].RequestID, true
			}
		}
	}
	for i, r := range request.Requests {
		take(i, func(p netip.Prefix) bool { return p == r.Prefix })
	}
	for i, r := range request.Requests {
		take(i, func(p netip.Prefix) bool { return p.Addr().Is4() == r.Prefix.Addr().Is4() })
	}
	var a AddressAssignment
	for i, p := range owned {
		a.Addresses = append(a.Addresses, AssignedAddress{RequestID: ids[i], Prefix: p})
	}
	for i, r := range request.Requests {
		if !granted[i] {
			a.Addresses = append(a.Addresses,
				AssignedAddress{RequestID: r.RequestID, Prefix: rejection(r.Prefix.Addr())})
		}
	}
	return a
}

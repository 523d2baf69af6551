package masque

import (
	"fmt"
	"net/netip"

	"github.com/quic-go/quic-go/quicvarint"
)

// RequestedAddress is one entry of an ADDRESS_REQUEST capsule (RFC 9484 figure 10).
type RequestedAddress struct {
	// RequestID is never 0 and never used twice by a sender in one session.
	RequestID uint64
	// Prefix is the preferred one; an unspecified address means any of the family,
	// with the preferred length.
	Prefix netip.Prefix
}

// AddressRequest is the content of an ADDRESS_REQUEST capsule. The receiver answers
// each entry; see [Assign].
type AddressRequest struct {
	Requests []RequestedAddress
}

// ParseAddressRequest parses the body of an ADDRESS_REQUEST capsule. An entry whose
// prefix is malformed counts as a request for any address of its family, since its
// ID has to be answered and the address is but a preference. No entries at all, an
// ID of 0 or an entry whose end cannot be told make the capsule malformed.
func ParseAddressRequest(body []byte) (r AddressRequest, malformedEntries int, err error) {
	if len(body) == 0 {
		return r, 0, fmt.Errorf("address request: %w: no entry", errMalformed)
	}
	for len(body) > 0 {
		if len(r.Requests) == MaxAddressEntries {
			return AddressRequest{}, 0, fmt.Errorf("address request: %w", errExcessive)
		}
		var e addressEntry
		if e, body, err = parseAddressEntry(body); err != nil {
			return AddressRequest{}, 0, fmt.Errorf("address request: %w", err)
		}
		if e.requestID == 0 {
			return AddressRequest{}, 0, fmt.Errorf("address request: %w: request id 0", errMalformed)
		}
		p, ok := e.prefix()
		if !ok {
			malformedEntries++
			p = rejection(e.addr)
		}
		r.Requests = append(r.Requests, RequestedAddress{RequestID: e.requestID, Prefix: p})
	}
	return r, malformedEntries, nil
}

// AppendAddressRequest appends the body of an ADDRESS_REQUEST capsule. It refuses
// what ParseAddressRequest would not take whole.
func AppendAddressRequest(dst []byte, r AddressRequest) ([]byte, error) {
	if n := len(r.Requests); n == 0 || n > MaxAddressEntries {
		return nil, fmt.Errorf("address request: %d entries", n)
	}
	for _, e := range r.Requests {
		if e.RequestID == 0 || e.RequestID > quicvarint.Max || !validPrefix(e.Prefix) {
			return nil, fmt.Errorf("address request: invalid entry %d %v", e.RequestID, e.Prefix)
		}
		dst = appendAddressEntry(dst, e.RequestID, e.Prefix)
	}
	return dst, nil
}

// anyAddress is what a client asks for: one address of each family.
func anyAddress() []netip.Prefix {
	return []netip.Prefix{rejection(netip.IPv4Unspecified()), rejection(netip.IPv6Unspecified())}
}

package masque

import (
	"fmt"
	"net/netip"

	"github.com/quic-go/quic-go/quicvarint"
)

// MaxAddressEntries is the largest number of entries in an ADDRESS_ASSIGN or
// ADDRESS_REQUEST capsule that is taken or sent.
const MaxAddressEntries = 1024

// addressEntry is the entry both address capsules share: request ID, version,
// address, prefix length (RFC 9484 figures 8 and 10). The prefix is kept as it
// came, so that the two capsules can treat a malformed one in their own ways.
type addressEntry struct {
	requestID uint64
	addr      netip.Addr
	bits      int
}

// prefix returns the entry's prefix, or false if it is malformed: longer than
// the address, bits set below it, or an IPv4-mapped IPv6 address.
func (e addressEntry) prefix() (netip.Prefix, bool) {
	p := netip.PrefixFrom(e.addr, e.bits)
	return p, validPrefix(p)
}

// validPrefix reports whether p may stand in a capsule.
func validPrefix(p netip.Prefix) bool {
	return p.IsValid() && p.Addr().Zone() == "" && !p.Addr().Is4In6() && p == p.Masked()
}

// parseAddressEntry splits one entry off b.
func parseAddressEntry(b []byte) (addressEntry, []byte, error) {
	id, n, err := quicvarint.Parse(b)
	if err != nil || len(b) == n {
		return addressEntry{}, nil, fmt.Errorf("%w: truncated address entry", errMalformed)
	}
	version := b[n]
	addr, rest, err := parseAddr(version, b[n+1:])
	if err != nil {
		return addressEntry{}, nil, err
	}
	if len(rest) == 0 {
		return addressEntry{}, nil, fmt.Errorf("%w: truncated address entry", errMalformed)
	}
	return addressEntry{requestID: id, addr: addr, bits: int(rest[0])}, rest[1:], nil
}

// parseAddr splits an address of the given IP version off b.
func parseAddr(version byte, b []byte) (netip.Addr, []byte, error) {
	switch {
	case version == 4 && len(b) >= 4:
		return netip.AddrFrom4([4]byte(b)), b[4:], nil
	case version == 6 && len(b) >= 16:
		return netip.AddrFrom16([16]byte(b)), b[16:], nil
	case version == 4 || version == 6:
		return netip.Addr{}, nil, fmt.Errorf("%w: truncated address", errMalformed)
	}
	return netip.Addr{}, nil, fmt.Errorf("%w: ip version %d", errMalformed, version)
}

// appendAddressEntry appends one entry. The prefix must be valid.
func appendAddressEntry(dst []byte, requestID uint64, p netip.Prefix) []byte {
	dst = quicvarint.Append(dst, requestID)
	dst = append(dst, versionOf(p.Addr()))
	dst = append(dst, p.Addr().AsSlice()...)
	return append(dst, byte(p.Bits()))
}

// versionOf returns the value of an IP Version field.
func versionOf(a netip.Addr) byte {
	if a.Is4() {
		return 4
	}
	return 6
}

// rejection returns the prefix that says "no address assigned" in the family of
// a: 0.0.0.0/32 or ::/128 (RFC 9484 section 4.7.2). In a request the same prefix
// asks for any address.
func rejection(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 32)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 128)
}

// Package packet reads the headers of inner IP packets in place (RFC 791, RFC 8200). Nothing here allocates,
// keeps a reference or does I/O.
package packet

import (
	"encoding/binary"
	"net/netip"
)

// Header sizes and limits in bytes.
const (
	MinIPv4HeaderBytes = 20
	IPv6HeaderBytes    = 40
	MinIPv6MTUBytes    = 1280 // RFC 8200 section 5
)

// IP protocol numbers (IANA "Assigned Internet Protocol Numbers").
const (
	ProtocolICMP   = 1
	ProtocolTCP    = 6
	ProtocolUDP    = 17
	ProtocolICMPv6 = 58
)

// Header is what the dataplane needs to know of a packet.
type Header struct {
	Src, Dst netip.Addr
	Version  uint8 // 4 or 6
	Protocol uint8 // IPv4 protocol, or IPv6 next header (which may be an extension header)
	HopLimit uint8 // IPv4 TTL or IPv6 hop limit
}

// Parse reads the IP header of b, which must hold exactly one packet. ok is false when b is not one: wrong
// version, truncated, or a length field that disagrees with len(b).
func Parse(b []byte) (h Header, ok bool) {
	if len(b) < MinIPv4HeaderBytes {
		return Header{}, false
	}
	switch b[0] >> 4 {
	case 4:
		return parseIPv4(b)
	case 6:
		return parseIPv6(b)
	}
	return Header{}, false
}

func parseIPv4(b []byte) (Header, bool) {
	headerBytes := int(b[0]&0x0f) * 4
	if headerBytes < MinIPv4HeaderBytes || headerBytes > len(b) {
		return Header{}, false
	}
	if int(binary.BigEndian.Uint16(b[2:4])) != len(b) {
		return Header{}, false
	}
	return Header{
		Src:     netip.AddrFrom4([4]byte(b[12:16])),
		Dst:     netip.AddrFrom4([4]byte(b[16:20])),
		Version: 4, Protocol: b[9], HopLimit: b[8],
	}, true
}

func parseIPv6(b []byte) (Header, bool) {
	if len(b) < IPv6HeaderBytes || int(binary.BigEndian.Uint16(b[4:6])) != len(b)-IPv6HeaderBytes {
		return Header{}, false
	}
	return Header{
		Src:     netip.AddrFrom16([16]byte(b[8:24])),
		Dst:     netip.AddrFrom16([16]byte(b[24:40])),
		Version: 6, Protocol: b[6], HopLimit: b[7],
	}, true
}

// DecrementHopLimit takes one off the TTL or hop limit of a packet that Parse accepted and mends the IPv4
// header checksum (RFC 1624). It reports false, changing nothing, when the packet may not be forwarded any more.
func DecrementHopLimit(b []byte) bool {
	if b[0]>>4 == 6 {
		if b[7] <= 1 {
			return false
		}
		b[7]--
		return true
	}
	if b[8] <= 1 {
		return false
	}
	b[8]--
	// RFC 1624 equation 3 with m = old word, m' = m - 0x0100: HC' = ~(~HC + ~m + m'), which is HC + 0x0100 in
	// ones' complement arithmetic.
	sum := uint32(binary.BigEndian.Uint16(b[10:12])) + 0x0100
	sum += sum >> 16
	binary.BigEndian.PutUint16(b[10:12], uint16(sum))
	return true
}

// Forwardable reports whether an endpoint may pass a packet with this address on at all. Link-local, loopback,
// multicast and unspecified addresses stay on their link (RFC 9484 section 7, RFC 4291 section 2.5.6); 0.0.0.0/8 and
// IPv4-mapped addresses belong on no link, and the latter would slip past checks made for IPv4 (RFC 1812 section
// 5.3.7, RFC 4942 section 2.2).
func Forwardable(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.Is4In6() && (!a.Is4() || a.As4()[0] != 0)
}

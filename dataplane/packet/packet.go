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

	protocolHopByHop       = 0
	protocolDCCP           = 33
	protocolRouting        = 43
	protocolIPv6Fragment   = 44
	protocolAuthentication = 51
	protocolDestination    = 60
	protocolSCTP           = 132
	protocolMobility       = 135
	protocolUDPLite        = 136
)

// Header is what the dataplane needs to know of a packet.
type Header struct {
	Src, Dst netip.Addr
	// SrcPort and DstPort are those of TCP, UDP, UDP-Lite, DCCP and SCTP, and 0 where there are none to read:
	// other protocols, IPv6 extension headers, fragments (the first one too) and packets that end before
	// them.
	SrcPort, DstPort uint16
	// TransportOffset is where the IPv4 header with its options, or the fixed IPv6 header, ends.
	TransportOffset uint16
	Version         uint8 // 4 or 6
	Protocol        uint8 // IPv4 protocol, or IPv6 next header (which may be an extension header)
	HopLimit        uint8 // IPv4 TTL or IPv6 hop limit
	// Fragment is set for a part of a packet: IPv4 with an offset or with more to come, or IPv6 whose first
	// extension header is the fragment header.
	Fragment bool
}

// Parse reads the IP header of b, which must hold exactly one packet. ok is false when b is not one: wrong
// version, truncated, or a length field that disagrees with len(b).
func Parse(b []byte) (h Header, ok bool) {
	ok = h.Read(b)
	return h, ok
}

// Read is [Parse] without the copies: it fills in h, or reports false and leaves it as it was.
func (h *Header) Read(b []byte) bool {
	if len(b) < MinIPv4HeaderBytes {
		return false
	}
	switch b[0] >> 4 {
	case 4:
		return h.readIPv4(b)
	case 6:
		return h.readIPv6(b)
	}
	return false
}

func (h *Header) readIPv4(b []byte) bool {
	headerBytes := int(b[0]&0x0f) * 4
	if headerBytes < MinIPv4HeaderBytes || headerBytes > len(b) {
		return false
	}
	if int(binary.BigEndian.Uint16(b[2:4])) != len(b) {
		return false
	}
	h.Src, h.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	h.Version, h.Protocol, h.HopLimit = 4, b[9], b[8]
	h.TransportOffset, h.Fragment = uint16(headerBytes), isIPv4Fragment(b)
	h.readPorts(b[headerBytes:])
	return true
}

func (h *Header) readIPv6(b []byte) bool {
	if len(b) < IPv6HeaderBytes || int(binary.BigEndian.Uint16(b[4:6])) != len(b)-IPv6HeaderBytes {
		return false
	}
	h.Src, h.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	h.Version, h.Protocol, h.HopLimit = 6, b[6], b[7]
	h.TransportOffset, h.Fragment = IPv6HeaderBytes, b[6] == protocolIPv6Fragment
	h.readPorts(b[IPv6HeaderBytes:])
	return true
}

func (h *Header) readPorts(transport []byte) {
	h.SrcPort, h.DstPort = 0, 0
	if !h.Fragment && hasPorts(h.Protocol) && len(transport) >= 4 {
		h.SrcPort, h.DstPort = binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
	}
}

// MayFragment reports whether a router may fragment a packet: IPv4 without DF, in a header that is there.
func MayFragment(b []byte) bool {
	return len(b) >= MinIPv4HeaderBytes && b[0]>>4 == 4 && b[6]&ipv4DF == 0
}

// isIPv4Fragment looks at the more-fragments bit and the fragment offset.
func isIPv4Fragment(b []byte) bool { return b[6]&0x3f|b[7] != 0 }

// hasPorts reports whether a transport header begins with two ports of 16 bits.
func hasPorts(protocol uint8) bool {
	switch protocol {
	case ProtocolTCP, ProtocolUDP, protocolDCCP, protocolSCTP, protocolUDPLite:
		return true
	}
	return false
}

// DecrementHopLimit takes one off the TTL or hop limit of a packet that Parse accepted and mends the IPv4
// header checksum (RFC 1624). It reports false, changing nothing, when the packet may not be forwarded any
// more.
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

// Forwardable reports whether an endpoint may pass a packet with this address on at all. Link-local,
// loopback, multicast and unspecified addresses stay on their link (RFC 9484 section 7, RFC 4291 section
// 2.5.6); 0.0.0.0/8 and IPv4-mapped addresses belong on no link, and the latter would slip past checks made
// for IPv4 (RFC 1812 section 5.3.7, RFC 4942 section 2.2).
func Forwardable(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.Is4In6() && (!a.Is4() || a.As4()[0] != 0)
}

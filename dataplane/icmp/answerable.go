package icmp

import (
	"encoding/binary"
	"net/netip"
)

// answerable4 reports whether an ICMP error may be sent about an IPv4 packet (RFC
// 1812 section 4.3.2.7).
func answerable4(p []byte) bool {
	if len(p) < header4Bytes || p[0]>>4 != 4 {
		return false
	}
	headerBytes := int(p[0]&0x0f) * 4
	if headerBytes < header4Bytes || len(p) < headerBytes {
		return false
	}
	if binary.BigEndian.Uint16(p[6:])&0x1fff != 0 { // not the first fragment
		return false
	}
	src := netip.AddrFrom4([4]byte(p[12:16]))
	dst := netip.AddrFrom4([4]byte(p[16:20]))
	if !oneHost(src) || dst.IsMulticast() || dst == broadcast4() {
		return false
	}
	return p[9] != protocolICMP4 || len(p) > headerBytes && query4(p[headerBytes])
}

// query4 reports whether an ICMP type is a query or its answer. All others are
// treated as errors: unknown ones too, lest two nodes answer each other for ever.
func query4(kind byte) bool {
	switch kind {
	case 0, 8, 13, 14, 15, 16, 17, 18, 42, 43:
		return true
	}
	return false
}

// answerable6 reports whether an ICMP error may be sent about an IPv6 packet (RFC
// 4443 section 2.4 (e)). Packet Too Big about multicast, which that section allows,
// is left out: tunnels carry no multicast routing that would use it.
func answerable6(p []byte) bool {
	if len(p) < header6Bytes || p[0]>>4 != 6 {
		return false
	}
	src := netip.AddrFrom16([16]byte(p[8:24]))
	dst := netip.AddrFrom16([16]byte(p[24:40]))
	if !oneHost(src) || dst.IsMulticast() {
		return false
	}
	protocol, rest, ok := upperLayer(p[6], p[header6Bytes:])
	if !ok {
		return false
	}
	const firstInformational, redirect = 128, 137
	return protocol != protocolICMP6 ||
		len(rest) > 0 && rest[0] >= firstInformational && rest[0] != redirect
}

// Extension headers that stand before an upper layer (RFC 8200 section 4, RFC 7045).
const (
	hopByHop    = 0
	routing     = 43
	fragment    = 44
	authHeader  = 51
	destination = 60
	mobility    = 135
	hip         = 139
	shim6       = 140
)

// upperLayer walks the extension headers. It returns false for a fragment other than
// the first and for a chain that ends before its upper layer.
func upperLayer(next byte, b []byte) (protocol byte, rest []byte, ok bool) {
	for {
		var length int
		switch next {
		case hopByHop, routing, destination, mobility, hip, shim6:
			if len(b) < 2 {
				return 0, nil, false
			}
			length = 8 + 8*int(b[1])
		case authHeader:
			if len(b) < 2 {
				return 0, nil, false
			}
			length = 8 + 4*int(b[1])
		case fragment:
			length = 8
			if len(b) < length || binary.BigEndian.Uint16(b[2:])&^7 != 0 {
				return 0, nil, false
			}
		default:
			return next, b, true
		}
		if len(b) < length {
			return 0, nil, false
		}
		next, b = b[0], b[length:]
	}
}

// oneHost reports whether an address can be one host's.
func oneHost(a netip.Addr) bool {
	if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return false
	}
	if a.Is4() {
		// 0.0.0.0/8 is "this network", 240.0.0.0/4 is reserved or broadcast.
		first := a.As4()[0]
		return first != 0 && first < 240
	}
	return true
}

func broadcast4() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

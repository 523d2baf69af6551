package impair

import "encoding/binary"

// class is what a line needs to know of a frame.
type class uint8

const (
	neighbour class = iota // no IP, or what hosts say to their neighbours about themselves
	udp
	other
)

const (
	ethernetBytes = 14
	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd

	protoHopByHop = 0
	protoIGMP     = 2
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoICMPv6   = 58
	protoOptions  = 60

	// maxExtensions bounds the walk along IPv6 extension headers.
	maxExtensions = 8
)

// ipBytes returns the length of what a frame carries.
func ipBytes(frame []byte) int { return max(0, len(frame)-ethernetBytes) }

// classify looks into an Ethernet frame without a VLAN tag. A packet too short for its headers is
// other.
func classify(frame []byte) class {
	if len(frame) < ethernetBytes {
		return neighbour
	}
	packet := frame[ethernetBytes:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherTypeIPv4:
		if len(packet) < 20 {
			return other
		}
		switch packet[9] {
		case protoUDP:
			return udp
		case protoIGMP:
			return neighbour
		}
		return other
	case etherTypeIPv6:
		return classifyIPv6(packet)
	}
	return neighbour
}

// classifyIPv6 walks the extension headers (RFC 8200 section 4) to the transport protocol.
func classifyIPv6(packet []byte) class {
	if len(packet) < 40 {
		return other
	}
	next, rest := packet[6], packet[40:]
	for range maxExtensions {
		switch next {
		case protoUDP:
			return udp
		case protoICMPv6:
			if len(rest) > 0 && neighbourMessage(rest[0]) {
				return neighbour
			}
			return other
		case protoHopByHop, protoRouting, protoOptions, protoFragment:
			if len(rest) < 8 {
				return other
			}
			length := 8
			if next != protoFragment {
				length += int(rest[1]) * 8
			}
			if len(rest) < length {
				return other
			}
			next, rest = rest[0], rest[length:]
		default:
			return other
		}
	}
	return other
}

// neighbourMessage tells the ICMPv6 types of neighbour discovery (RFC 4861) and multicast listener
// discovery (RFC 2710, RFC 3810).
func neighbourMessage(icmpType byte) bool {
	return icmpType >= 130 && icmpType <= 137 || icmpType == 143
}

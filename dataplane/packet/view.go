package packet

import "encoding/binary"

// kind is how much of a packet's transport header can be read.
type kind uint8

const (
	kindOther kind = iota // neither TCP nor UDP, or no packet at all
	kindStray             // perhaps of a TCP or UDP flow, but its ports can not be read
	kindFlow              // TCP or UDP with ports
	kindWhole             // the transport header is whole and agrees with the packet's length
)

// view is where the parts of a packet are. It has no more than four fields, so that it stays in registers.
type view struct {
	transport   int // offset of the transport header
	headerBytes int // IP and transport header together, of kindWhole
	protocol    uint8
	kind        kind
}

// look finds the transport header of a packet whose length agrees with its IP header, as after Parse.
// Anything else is of kindOther.
func look(p []byte) view {
	if len(p) < MinIPv4HeaderBytes {
		return view{}
	}
	switch p[0] >> 4 {
	case 4:
		transport := int(p[0]&0x0f) * 4
		if transport < MinIPv4HeaderBytes || transport > len(p) ||
			int(binary.BigEndian.Uint16(p[2:4])) != len(p) {
			return view{}
		}
		if isIPv4Fragment(p) {
			return view{transport: transport, protocol: p[9], kind: kindStray}
		}
		return lookTransport(p, transport, p[9])
	case 6:
		if len(p) < IPv6HeaderBytes || int(binary.BigEndian.Uint16(p[4:6])) != len(p)-IPv6HeaderBytes {
			return view{}
		}
		switch p[6] {
		case protocolHopByHop, protocolRouting, protocolIPv6Fragment, protocolAuthentication,
			protocolDestination, protocolMobility:
			return view{transport: IPv6HeaderBytes, protocol: p[6], kind: kindStray}
		}
		return lookTransport(p, IPv6HeaderBytes, p[6])
	}
	return view{}
}

func lookTransport(p []byte, transport int, protocol uint8) view {
	rest := p[transport:]
	headerBytes, known := 0, kindStray
	switch {
	case protocol != ProtocolTCP && protocol != ProtocolUDP:
		known = kindOther
	case len(rest) < 4:
	case protocol == ProtocolUDP:
		known = kindFlow
		if len(rest) >= udpHeaderBytes && int(binary.BigEndian.Uint16(rest[4:6])) == len(rest) {
			headerBytes, known = transport+udpHeaderBytes, kindWhole
		}
	default:
		known = kindFlow
		if len(rest) < minTCPHeaderBytes {
			break
		}
		if n := int(rest[12]>>4) * 4; n >= minTCPHeaderBytes && n <= len(rest) {
			headerBytes, known = transport+n, kindWhole
		}
	}
	return view{transport: transport, headerBytes: headerBytes, protocol: protocol, kind: known}
}

package packet

import (
	"encoding/binary"
)

// TCP options (RFC 9293 section 3.2).
const (
	tcpOptionEnd      = 0
	tcpOptionNoOp     = 1
	tcpOptionMSS      = 2
	tcpOptionMSSBytes = 4
)

// ClampMSS lowers the maximum segment size that a TCP SYN or SYN-ACK announces to what fits a path of
// mtuBytes: the MTU less the fixed IP and TCP headers, whatever options there are (RFC 6691). It never raises
// it and never adds the option. partial says that the checksum is partial, which does not cover the option
// yet; a full one is mended (RFC 1624). It reports whether it changed the packet, which is one that [Parse]
// accepts.
func ClampMSS(p []byte, mtuBytes int, partial bool) bool {
	v := look(p)
	if !v.isSYN(p) {
		return false
	}
	limit := mtuBytes - MinIPv4HeaderBytes - minTCPHeaderBytes
	if p[0]>>4 == 6 {
		limit = mtuBytes - IPv6HeaderBytes - minTCPHeaderBytes
	}
	tcp := p[v.transport:v.headerBytes]
	at := findMSS(tcp)
	if at == 0 || limit < 1 || int(binary.BigEndian.Uint16(tcp[at:])) <= limit {
		return false
	}
	before, after := binary.BigEndian.Uint16(tcp[at:]), uint16(limit)
	binary.BigEndian.PutUint16(tcp[at:], after)
	if partial {
		return true
	}
	if at&1 != 0 {
		// Both bytes count in the other half of their words: as if the value were byte-swapped.
		before, after = before<<8|before>>8, after<<8|after>>8
	}
	field := tcp[tcpChecksumOffset : tcpChecksumOffset+2]
	binary.BigEndian.PutUint16(field, mend(binary.BigEndian.Uint16(field), before, after))
	return true
}

// IsSYN reports whether p is a TCP SYN or SYN-ACK, which [ClampMSS] may change.
func IsSYN(p []byte) bool { return look(p).isSYN(p) }

func (v view) isSYN(p []byte) bool {
	return v.kind == kindWhole && v.protocol == ProtocolTCP && p[v.transport+tcpFlagsOffset]&tcpSYN != 0
}

// findMSS is where in a TCP header the value of the maximum segment size option is, or 0.
func findMSS(tcp []byte) int {
	for i := minTCPHeaderBytes; i < len(tcp); {
		switch tcp[i] {
		case tcpOptionEnd:
			return 0
		case tcpOptionNoOp:
			i++
			continue
		}
		if i+1 >= len(tcp) {
			return 0
		}
		n := int(tcp[i+1])
		if n < 2 || i+n > len(tcp) {
			return 0
		}
		if tcp[i] == tcpOptionMSS && n == tcpOptionMSSBytes {
			return i + 2
		}
		i += n
	}
	return 0
}

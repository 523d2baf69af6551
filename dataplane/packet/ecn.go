package packet

import "encoding/binary"

// ECN is the two-bit congestion field of an IP header (RFC 3168 section 5).
type ECN uint8

// The codepoints.
const (
	NotECT ECN = iota // the transport does not know ECN
	ECT1              // ECN-capable, for RFC 9331
	ECT0              // ECN-capable
	CE                // congestion experienced
)

// ReadECN is the codepoint of a packet that [Parse] accepts.
func ReadECN(p []byte) ECN {
	if p[0]>>4 == 6 {
		return ECN(p[1]>>4) & CE
	}
	return ECN(p[1]) & CE
}

// writeECN changes the codepoint and mends the IPv4 header checksum (RFC 1624 equation 3).
func writeECN(p []byte, e ECN) {
	if p[0]>>4 == 6 {
		p[1] = p[1]&^0x30 | uint8(e)<<4
		return
	}
	old := binary.BigEndian.Uint16(p[0:2])
	p[1] = p[1]&^uint8(CE) | uint8(e)
	binary.BigEndian.PutUint16(p[10:12], mend(binary.BigEndian.Uint16(p[10:12]), old, binary.BigEndian.Uint16(p[0:2])))
}

// mend is the checksum after one covered word changed from before to after (RFC 1624 equation 3).
func mend(checksum, before, after uint16) uint16 {
	sum := uint32(^checksum) + uint32(^before) + uint32(after)
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	return ^uint16(sum)
}

// SetCE marks a packet that [Parse] accepts as having met congestion. It reports false, changing nothing, if
// the packet is not ECN-capable.
func SetCE(p []byte) bool {
	switch ReadECN(p) {
	case NotECT:
		return false
	case ECT0, ECT1:
		writeECN(p, CE)
	case CE:
	}
	return true
}

// Encapsulate is the codepoint of the outer header for a packet with codepoint inner: the same, which RFC
// 6040 section 4.1 calls normal mode and which takes an egress that calls [Decapsulate]. For one that does
// not the outer codepoint is NotECT (compatibility mode).
func Encapsulate(inner ECN) ECN { return inner & CE }

// Decapsulation is what became of a packet's ECN field where it left the tunnel.
type Decapsulation uint8

// The results of Decapsulate.
const (
	DecapsulationOrdinary  Decapsulation = iota
	DecapsulationUnusual                 // allowed, not used by any transport today
	DecapsulationDangerous               // something on the way sets the field wrongly; forward and count
	DecapsulationDrop                    // congestion that the packet can not report: it must be dropped
)

// decapsulations is figure 4 of RFC 6040, by inner, then outer codepoint. NotECT, ECT1, ECT0, CE is their
// numerical order.
var decapsulations = [4][4]struct {
	inner  ECN
	result Decapsulation
}{
	NotECT: {
		NotECT: {NotECT, DecapsulationOrdinary}, ECT0: {NotECT, DecapsulationDangerous},
		ECT1: {NotECT, DecapsulationDangerous}, CE: {NotECT, DecapsulationDrop},
	},
	ECT0: {
		NotECT: {ECT0, DecapsulationOrdinary}, ECT0: {ECT0, DecapsulationOrdinary},
		ECT1: {ECT1, DecapsulationOrdinary}, CE: {CE, DecapsulationOrdinary},
	},
	ECT1: {
		NotECT: {ECT1, DecapsulationOrdinary}, ECT0: {ECT1, DecapsulationUnusual},
		ECT1: {ECT1, DecapsulationOrdinary}, CE: {CE, DecapsulationOrdinary},
	},
	CE: {
		NotECT: {CE, DecapsulationOrdinary}, ECT0: {CE, DecapsulationOrdinary},
		ECT1: {CE, DecapsulationDangerous}, CE: {CE, DecapsulationOrdinary},
	},
}

// Decapsulate gives the inner packet p, which [Parse] accepts, the codepoint it has after a tunnel whose
// outer header arrived with outer (RFC 6040 section 4.2). Nothing is changed if the packet is to be dropped.
func Decapsulate(outer ECN, p []byte) Decapsulation {
	inner := ReadECN(p)
	d := &decapsulations[inner][outer&CE]
	if d.inner != inner {
		writeECN(p, d.inner)
	}
	return d.result
}

package packet

import (
	"encoding/binary"
	"math/bits"
)

// Transport header sizes, and where the checksum field is in them, in bytes.
const (
	minTCPHeaderBytes = 20
	udpHeaderBytes    = 8
	tcpChecksumOffset = 16
	udpChecksumOffset = 6
)

// Sum adds the big-endian words of b (an odd last byte counts as the upper half of a word) to initial in
// ones' complement arithmetic and returns the folded, not inverted, result (RFC 1071).
func Sum(b []byte, initial uint16) uint16 {
	return fold(addWords(b, swapped(initial)))
}

// swapped is a big-endian 16-bit word as addWords counts it. The ones' complement sum of byte-swapped words
// is the byte-swapped sum (RFC 1071 section 2 B), so all words are added as the common machines load them.
func swapped(word uint16) uint64 { return uint64(bits.ReverseBytes16(word)) }

// addWords adds b to acc in ones' complement arithmetic, 64 bits at a time, with words in little-endian
// order.
func addWords(b []byte, acc uint64) uint64 {
	// A chain of Add64 begins with no carry, so it can not end with both a carry and all ones: the carry is
	// added at its end without a further one. Two chains run side by side in the processor.
	var other, carry uint64
	for len(b) >= 128 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), 0)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[32:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[40:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[48:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[56:]), carry)
		acc += carry
		other, carry = bits.Add64(other, binary.LittleEndian.Uint64(b[64:]), 0)
		other, carry = bits.Add64(other, binary.LittleEndian.Uint64(b[72:]), carry)
		other, carry = bits.Add64(other, binary.LittleEndian.Uint64(b[80:]), carry)
		other, carry = bits.Add64(other, binary.LittleEndian.Uint64(b[88:]), carry)
		other, carry = bits.Add64(other, binary.LittleEndian.Uint64(b[96:]), carry)
		other, carry = bits.Add64(other, binary.LittleEndian.Uint64(b[104:]), carry)
		other, carry = bits.Add64(other, binary.LittleEndian.Uint64(b[112:]), carry)
		other, carry = bits.Add64(other, binary.LittleEndian.Uint64(b[120:]), carry)
		other += carry
		b = b[128:]
	}
	acc, carry = bits.Add64(acc, other, 0)
	acc += carry
	for len(b) >= 32 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), 0)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:]), carry)
		acc += carry
		b = b[32:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), 0)
		acc += carry
		b = b[8:]
	}
	var tail uint64
	if len(b) >= 4 {
		tail = uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		tail += uint64(binary.LittleEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		tail += uint64(b[0])
	}
	acc, carry = bits.Add64(acc, tail, 0)
	return acc + carry
}

// fold makes the big-endian 16-bit sum of what addWords counted.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return bits.ReverseBytes16(uint16(acc))
}

// addPseudoHeader is the sum of the addresses and the protocol of an IP packet: the pseudo header (RFC 9293
// section 3.1, RFC 8200 section 8.1) without the length. p has a whole IP header without IPv6 extension
// headers.
func addPseudoHeader(p []byte, protocol uint8) uint64 {
	if p[0]>>4 == 6 {
		return addWords(p[8:40], swapped(uint16(protocol)))
	}
	return addWords(p[12:20], swapped(uint16(protocol)))
}

// seed is the pseudo header's sum with the length of the transport header and payload, which the checksum
// field holds while the checksum is partial.
func seed(pseudoHeader uint64, transportBytes int) uint16 {
	acc, carry := bits.Add64(pseudoHeader, swapped(uint16(transportBytes)), 0)
	return fold(acc + carry)
}

// finish makes the value of a checksum field of a sum. A UDP checksum is never zero, which would say that
// there is none (RFC 768).
func finish(sum uint16, udp bool) uint16 {
	if udp && sum == 0xffff {
		return 0xffff
	}
	return ^sum
}

// TransportChecksum finds where the transport header of p begins and, in that header, where its checksum
// field is. ok is false for what can not have a partial checksum: fragments, IPv6 packets with extension
// headers, other protocols than TCP and UDP, and packets whose transport header is cut off or, UDP, has
// another length than the packet. p is a packet that [Parse] accepts.
//
// A packet goes into a tunnel with a partial checksum only if this finds the place that the host named;
// otherwise it is completed first.
func TransportChecksum(p []byte) (start, offset uint16, ok bool) {
	v := look(p)
	if v.kind != kindWhole {
		return 0, 0, false
	}
	if v.protocol == ProtocolUDP {
		return uint16(v.transport), udpChecksumOffset, true
	}
	return uint16(v.transport), tcpChecksumOffset, true
}

// Complete turns a partial checksum into a full one: the transport header begins at start and its checksum
// field is at offset in it. It reports false, and changes nothing, if that is not inside the packet behind an
// IP header, or if offset is odd.
func Complete(p []byte, start, offset uint16) bool {
	at := int(start) + int(offset)
	if start < MinIPv4HeaderBytes || offset&1 != 0 || at+2 > len(p) {
		return false
	}
	field := p[at : at+2]
	binary.BigEndian.PutUint16(field, finish(Sum(p[start:], 0), offset == udpChecksumOffset))
	return true
}

// validChecksum reports whether the full TCP or UDP checksum of a whole packet is right. It is false for UDP without one.
func validChecksum(p []byte, v view) bool {
	if v.protocol == ProtocolUDP && binary.BigEndian.Uint16(p[v.transport+udpChecksumOffset:]) == 0 {
		return false
	}
	acc, carry := bits.Add64(addPseudoHeader(p, v.protocol), swapped(uint16(len(p)-v.transport)), 0)
	return fold(addWords(p[v.transport:], acc+carry)) == 0xffff
}

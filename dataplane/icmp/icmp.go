package icmp

import (
	"encoding/binary"
	"net/netip"
)

// Bounds on the packets made here.
const (
	// MaxIPv4Bytes is the longest IPv4 error (RFC 1812 section 4.3.2.3).
	MaxIPv4Bytes = 576
	// MaxIPv6Bytes is the longest IPv6 error (RFC 4443 section 2.4 (c)).
	MaxIPv6Bytes = 1280
	// MinIPv4MTU is the least MTU reported for IPv4 (RFC 1191 section 3).
	MinIPv4MTU = 68
	// MinIPv6MTU is the least MTU of an IPv6 link; hosts ignore reports of less
	// (RFC 8201 section 4).
	MinIPv6MTU = 1280
)

// Reason is why a packet's destination cannot be reached.
type Reason uint8

// The reasons of RFC 9484 section 7.2.1 and those a router needs beside them. IPv4
// has no code for SourceNotAllowed; it is reported as Prohibited.
const (
	NoRoute          Reason = iota // IPv4 code 0 (net), IPv6 code 0
	Prohibited                     // IPv4 code 13, IPv6 code 1
	HostUnreachable                // IPv4 code 1, IPv6 code 3
	PortUnreachable                // IPv4 code 3, IPv6 code 4
	SourceNotAllowed               // IPv4 code 13, IPv6 code 5
)

// codes returns the code of a reason for both versions.
func (r Reason) codes() (ipv4, ipv6 byte) {
	switch r {
	case NoRoute:
		return 0, 0
	case HostUnreachable:
		return 1, 3
	case PortUnreachable:
		return 3, 4
	case SourceNotAllowed:
		return 13, 5
	case Prohibited:
	}
	return 13, 1
}

// Message types.
const (
	typeUnreachable4  = 3
	typeTimeExceeded4 = 11
	codeTooBig4       = 4

	typeUnreachable6  = 1
	typeTooBig6       = 2
	typeTimeExceeded6 = 3
)

const (
	protocolICMP4 = 1
	protocolICMP6 = 58

	header4Bytes = 20
	header6Bytes = 40
	icmpBytes    = 8 // header of every error: type, code, checksum, 4 bytes of its own
	hopLimit     = 64

	// precedence6 is Internetwork Control, which RFC 1812 section 4.3.2.5 wants on errors.
	precedence6 = 6 << 5
	flagDF      = 0x40
)

// TooBig says that orig does not fit through a link that takes packets of mtu bytes:
// Fragmentation Needed for IPv4, also where orig would permit fragmentation, since
// a tunnel does not fragment (RFC 9484 section 10.1); Packet Too Big for IPv6. src is
// the address the error comes from. An mtu below the least of the family is reported
// as that least one; the result is nil if orig is not longer than what would be
// reported, because the sender could make nothing of it.
func TooBig(orig []byte, mtu int, src netip.Addr) []byte {
	if src.Is4() {
		mtu = min(max(mtu, MinIPv4MTU), 1<<16-1)
		if len(orig) <= mtu {
			return nil
		}
		return error4(orig, src, typeUnreachable4, codeTooBig4, uint32(mtu))
	}
	mtu = min(max(mtu, MinIPv6MTU), 1<<31-1)
	if len(orig) <= mtu {
		return nil
	}
	return error6(orig, src, typeTooBig6, 0, uint32(mtu))
}

// Unreachable says that orig cannot be delivered, and why. src is the address the
// error comes from.
func Unreachable(orig []byte, reason Reason, src netip.Addr) []byte {
	code4, code6 := reason.codes()
	if src.Is4() {
		return error4(orig, src, typeUnreachable4, code4, 0)
	}
	return error6(orig, src, typeUnreachable6, code6, 0)
}

// TimeExceeded says that orig's hop limit ran out here. src is the address the error
// comes from.
func TimeExceeded(orig []byte, src netip.Addr) []byte {
	if src.Is4() {
		return error4(orig, src, typeTimeExceeded4, 0, 0)
	}
	return error6(orig, src, typeTimeExceeded6, 0, 0)
}

// error4 builds an IPv4 error. own is the last field of the ICMP header.
func error4(orig []byte, src netip.Addr, kind, code byte, own uint32) []byte {
	if !answerable4(orig) || !oneHost(src) {
		return nil
	}
	quote := orig[:min(len(orig), MaxIPv4Bytes-header4Bytes-icmpBytes)]
	p := make([]byte, header4Bytes+icmpBytes+len(quote))
	p[0], p[1] = 4<<4|header4Bytes/4, precedence6
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[6] = flagDF // never fragmented, so the identification may be 0 (RFC 6864)
	p[8], p[9] = hopLimit, protocolICMP4
	from := src.As4()
	copy(p[12:16], from[:])
	copy(p[16:20], orig[12:16])
	binary.BigEndian.PutUint16(p[10:], ^fold(sum(0, p[:header4Bytes])))

	m := p[header4Bytes:]
	m[0], m[1] = kind, code
	binary.BigEndian.PutUint32(m[4:], own)
	copy(m[icmpBytes:], quote)
	binary.BigEndian.PutUint16(m[2:], ^fold(sum(0, m)))
	return p
}

// error6 builds an IPv6 error. own is the last field of the ICMP header.
func error6(orig []byte, src netip.Addr, kind, code byte, own uint32) []byte {
	if !src.Is6() || src.Is4In6() || !answerable6(orig) || !oneHost(src) {
		return nil
	}
	quote := orig[:min(len(orig), MaxIPv6Bytes-header6Bytes-icmpBytes)]
	p := make([]byte, header6Bytes+icmpBytes+len(quote))
	p[0] = 6 << 4
	binary.BigEndian.PutUint16(p[4:], uint16(icmpBytes+len(quote)))
	p[6], p[7] = protocolICMP6, hopLimit
	from := src.As16()
	copy(p[8:24], from[:])
	copy(p[24:40], orig[8:24])

	m := p[header6Bytes:]
	m[0], m[1] = kind, code
	binary.BigEndian.PutUint32(m[4:], own)
	copy(m[icmpBytes:], quote)
	// The pseudo-header is both addresses, the length and the protocol (RFC 8200
	// section 8.1).
	pseudo := sum(uint64(len(m))+protocolICMP6, p[8:40])
	binary.BigEndian.PutUint16(m[2:], ^fold(sum(pseudo, m)))
	return p
}

// sum adds the big-endian 16-bit words of b, the last one padded with a zero byte.
func sum(start uint64, b []byte) uint64 {
	for ; len(b) >= 2; b = b[2:] {
		start += uint64(b[0])<<8 | uint64(b[1])
	}
	if len(b) == 1 {
		start += uint64(b[0]) << 8
	}
	return start
}

// fold reduces a sum to 16 bits of one's complement (RFC 1071).
func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

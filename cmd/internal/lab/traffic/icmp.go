package traffic

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// An ICMPError is an ICMP message which says that a packet could not be delivered.
type ICMPError struct {
	From netip.Addr // who says so
	Type uint8      // of RFC 792 or RFC 4443, by the family of From
	Code uint8
	// MTU is what the next link carries, in bytes, where the message is of "fragmentation needed" (RFC
	// 1191) or "packet too big" (RFC 4443 section 3.2); otherwise 0.
	MTU int
}

// String returns the error on one line.
func (e ICMPError) String() string {
	if e.MTU > 0 {
		return fmt.Sprintf("%v: packet too big, MTU %d", e.From, e.MTU)
	}
	return fmt.Sprintf("%v: ICMP type %d code %d", e.From, e.Type, e.Code)
}

const (
	icmpHeaderBytes = 8
	tokenBytes      = 8

	icmp4EchoReply    = 0
	icmp4Unreachable  = 3
	icmp4EchoRequest  = 8
	icmp4TimeExceeded = 11
	icmp4ParamProblem = 12
	icmp4FragNeeded   = 4 // code of icmp4Unreachable

	icmp6Unreachable = 1
	icmp6TooBig      = 2
	icmp6LastError   = 127
	icmp6EchoRequest = 128
	icmp6EchoReply   = 129

	protocolICMP   = 1
	protocolICMPv6 = 58
)

// icmpEcho makes echo requests that can be told from everybody else's, and recognises what comes back.
type icmpEcho struct {
	v6    bool
	id    uint16
	token [tokenBytes]byte // begins the payload
}

func newICMPEcho(v6 bool) icmpEcho {
	e := icmpEcho{v6: v6}
	rand.Read(e.token[:])
	e.id = binary.BigEndian.Uint16(e.token[:])
	return e
}

// encode returns a request; the kernel fills in the checksum for IPv6.
func (e icmpEcho) encode(number uint16, payloadBytes int) []byte {
	b := make([]byte, icmpHeaderBytes+payloadBytes)
	b[0] = icmp4EchoRequest
	if e.v6 {
		b[0] = icmp6EchoRequest
	}
	binary.BigEndian.PutUint16(b[4:], e.id)
	binary.BigEndian.PutUint16(b[6:], number)
	copy(b[icmpHeaderBytes:], e.token[:])
	if !e.v6 {
		binary.BigEndian.PutUint16(b[2:], internetChecksum(b))
	}
	return b
}

// icmpAnswer is what a message says of a request of ours.
type icmpAnswer struct {
	number  uint16
	failure *ICMPError // nil if it is the answer
}

// parse reads an ICMP message without the IP header; ok is false if it has nothing to do with our
// requests.
func (e icmpEcho) parse(b []byte) (answer icmpAnswer, ok bool) {
	if len(b) < icmpHeaderBytes {
		return icmpAnswer{}, false
	}
	reply := uint8(icmp4EchoReply)
	if e.v6 {
		reply = icmp6EchoReply
	}
	if b[0] == reply {
		if len(b) < icmpHeaderBytes+tokenBytes || binary.BigEndian.Uint16(b[4:]) != e.id ||
			[tokenBytes]byte(b[icmpHeaderBytes:]) != e.token {
			return icmpAnswer{}, false
		}
		return icmpAnswer{number: binary.BigEndian.Uint16(b[6:])}, true
	}
	failure := &ICMPError{Type: b[0], Code: b[1]}
	var quoted []byte
	if e.v6 {
		quoted, ok = e.quoted6(b, failure)
	} else {
		quoted, ok = e.quoted4(b, failure)
	}
	if !ok || len(quoted) < icmpHeaderBytes || binary.BigEndian.Uint16(quoted[4:]) != e.id {
		return icmpAnswer{}, false
	}
	return icmpAnswer{number: binary.BigEndian.Uint16(quoted[6:]), failure: failure}, true
}

// quoted4 returns the echo request that an ICMP error quotes behind its IPv4 header.
func (e icmpEcho) quoted4(b []byte, failure *ICMPError) ([]byte, bool) {
	switch failure.Type {
	case icmp4Unreachable:
		if failure.Code == icmp4FragNeeded {
			failure.MTU = int(binary.BigEndian.Uint16(b[6:]))
		}
	case icmp4TimeExceeded, icmp4ParamProblem:
	default:
		return nil, false
	}
	quote := b[icmpHeaderBytes:]
	if len(quote) < 20 || quote[9] != protocolICMP {
		return nil, false
	}
	header := int(quote[0]&0x0f) * 4
	if header < 20 || len(quote) < header+icmpHeaderBytes || quote[header] != icmp4EchoRequest {
		return nil, false
	}
	return quote[header:], true
}

// quoted6 returns the echo request that an ICMPv6 error quotes behind its IPv6 header, which has no
// extensions unless the request was fragmented; those it does not recognise.
func (e icmpEcho) quoted6(b []byte, failure *ICMPError) ([]byte, bool) {
	const ipv6HeaderBytes = 40
	if failure.Type < icmp6Unreachable || failure.Type > icmp6LastError {
		return nil, false
	}
	if failure.Type == icmp6TooBig {
		failure.MTU = int(binary.BigEndian.Uint32(b[4:]))
	}
	quote := b[icmpHeaderBytes:]
	if len(quote) < ipv6HeaderBytes+icmpHeaderBytes || quote[6] != protocolICMPv6 ||
		quote[ipv6HeaderBytes] != icmp6EchoRequest {
		return nil, false
	}
	return quote[ipv6HeaderBytes:], true
}

// internetChecksum is that of RFC 1071, over bytes whose own checksum field is zero.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

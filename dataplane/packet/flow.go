package packet

import (
	"encoding/binary"
	"math/bits"
)

// Odd constants with bits spread evenly, so that fields that are zero still mix.
const (
	mixA = 0x9e3779b97f4a7c15
	mixB = 0xd1b54a32d192ed03
	mixC = 0x8bb84b93962eacc9
)

// FlowHash is the same for all packets of a flow: of addresses, protocol and, where [Header] has them, ports.
// The two directions of a connection differ. seed is a random secret of the caller's, so that strangers can
// not choose flows that share a hash. p is a packet that [Parse] accepts and h its header.
func (h *Header) FlowHash(p []byte, seed uint64) uint32 {
	tail := uint64(h.Protocol)<<32 | uint64(h.SrcPort)<<16 | uint64(h.DstPort)
	return hashFlow(p, tail, seed)
}

// FlowHash is [Header.FlowHash] without a header.
func FlowHash(p []byte, seed uint64) uint32 {
	if len(p) < MinIPv4HeaderBytes {
		return 0
	}
	protocol, transport, fragment := p[9], int(p[0]&0x0f)*4, false
	if p[0]>>4 == 6 {
		if len(p) < IPv6HeaderBytes {
			return 0
		}
		protocol, transport = p[6], IPv6HeaderBytes
	} else {
		fragment = isIPv4Fragment(p)
	}
	tail := uint64(protocol) << 32
	if !fragment && hasPorts(protocol) && len(p) >= transport+4 {
		tail |= uint64(binary.BigEndian.Uint32(p[transport:]))
	}
	return hashFlow(p, tail, seed)
}

// hashFlow mixes by the high and low halves of products of 64 by 64 bits.
func hashFlow(p []byte, tail, seed uint64) uint32 {
	if p[0]>>4 != 6 {
		return finishHash(binary.LittleEndian.Uint64(p[12:]), 0, tail|4<<40, seed)
	}
	a, b := binary.LittleEndian.Uint64(p[8:]), binary.LittleEndian.Uint64(p[16:])
	seed = mix(a^mixB^seed, b^bits.RotateLeft64(seed, 32)^mixC)
	return finishHash(binary.LittleEndian.Uint64(p[24:]), binary.LittleEndian.Uint64(p[32:]), tail, seed)
}

func finishHash(a, b, tail, seed uint64) uint32 {
	x := mix(a^seed^mixA, b^bits.RotateLeft64(seed, 23)^tail*mixC)
	x = mix(x^mixB, seed^mixC)
	return uint32(x ^ x>>32)
}

func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

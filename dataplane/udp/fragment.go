package udp

import (
	"encoding/binary"
	"net/netip"

	"github.com/aethertunnel/aethertunnel/dataplane/packet"
)

const (
	ipv4HeaderBytes, udpHeaderBytes = 20, 8
	// fragmentBytes is the longest fragment made, as an IPv4 packet: the least that every IPv4 link in use carries, so that
	// no router has to fragment, which many do not.
	fragmentBytes = 576
	// fragmentUnit is the unit of a fragment's offset (RFC 791 section 3.1).
	fragmentUnit = 8
	// fragmentPayloadBytes is what all fragments but the last carry.
	fragmentPayloadBytes = (fragmentBytes - ipv4HeaderBytes) / fragmentUnit * fragmentUnit

	ipv4MoreFragments = 1 << 13
	fragmentTTL       = 64
	protocolUDP       = 17
)

// fragmentFlow is what the fragments of a datagram have in common.
type fragmentFlow struct {
	from, to netip.AddrPort // both IPv4
	id       uint16         // unlike that of any other datagram on its way between the two
	tos      uint8
}

// appendUDP appends the datagram as IP carries it: header and payload.
func (f *fragmentFlow) appendUDP(dst, payload []byte) []byte {
	at, length := len(dst), udpHeaderBytes+len(payload)
	dst = binary.BigEndian.AppendUint16(dst, f.from.Port())
	dst = binary.BigEndian.AppendUint16(dst, f.to.Port())
	dst = binary.BigEndian.AppendUint16(dst, uint16(length))
	dst = append(append(dst, 0, 0), payload...)
	from, to := f.from.Addr().As4(), f.to.Addr().As4()
	sum := packet.Sum(to[:], packet.Sum(from[:], protocolUDP+uint16(length)))
	check := ^packet.Sum(dst[at:], sum)
	if check == 0 {
		check = 0xffff // 0 says that there is none
	}
	binary.BigEndian.PutUint16(dst[at+6:], check)
	return dst
}

// appendFragment appends the fragment at an offset of what appendUDP has made, as an IPv4 packet, and returns the offset of
// the next one, or 0 behind the last. The kernel fills in length and checksum of the header.
func (f *fragmentFlow) appendFragment(dst, datagram []byte, offset int) (fragment []byte, next int) {
	n, flags := len(datagram)-offset, uint16(0)
	if n > fragmentPayloadBytes {
		n, flags = fragmentPayloadBytes, ipv4MoreFragments
		next = offset + n
	}
	from, to := f.from.Addr().As4(), f.to.Addr().As4()
	dst = append(dst, 0x45, f.tos)
	dst = binary.BigEndian.AppendUint16(dst, uint16(ipv4HeaderBytes+n))
	dst = binary.BigEndian.AppendUint16(dst, f.id)
	dst = binary.BigEndian.AppendUint16(dst, flags|uint16(offset/fragmentUnit))
	dst = append(dst, fragmentTTL, protocolUDP, 0, 0)
	dst = append(append(dst, from[:]...), to[:]...)
	return append(dst, datagram[offset:offset+n]...), next
}

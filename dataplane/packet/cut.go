package packet

import (
	"encoding/binary"
	"math/bits"

	"github.com/aethertunnel/aethertunnel/tun"
)

// MaxHeaderBytes is the longest IP and transport header that a [Cutter] takes, each with all options.
const MaxHeaderBytes = 60 + 60

// TCP flags (RFC 9293 section 3.1), byte 13 of the header.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	tcpPSH
	tcpACK
	tcpURG
	tcpECE
	tcpCWR
)

const (
	tcpFlagsOffset = 13
	ipv4DF         = 0x40 // byte 6 of the header
)

// Cutter cuts a super-packet into segments. It keeps a copy of the headers, so that segment k's header may be
// written into the packet's own buffer right before the segment's payload, over the end of the payload of
// segment k-1, once that is no longer needed:
//
//	for k := range c.Segments() {
//		at, n := c.Payload(k)
//		segment := buf[at-c.HeaderBytes() : at+n]
//		c.PutHeader(segment, k, true)
//		...
//	}
//
// Segments that are shorter than the headers need free bytes before the packet: buf above begins
// HeaderBytes() before the super-packet at most, and at and n count from the super-packet's first byte.
// [tun.Headroom] bytes suffice, less what the caller puts before each header, since no payload is empty.
//
// The segments are those that Linux makes (tcp_gso_segment, __udp_gso_segment): the IPv4 identification
// counts up, FIN and PSH stay on the last segment and CWR on the first.
type Cutter struct {
	packet       []byte
	segments     int
	segmentBytes int
	headerBytes  int
	transport    int
	pseudoHeader uint64 // sum without the length
	ipv4Header   uint64 // sum without length, identification and checksum
	sequence     uint32
	id           uint16
	flags        uint8
	ipv6, udp    bool
	header       [MaxHeaderBytes]byte // with zeros for all checksums
}

// NewCutter prepares to cut p, which is one packet that [Parse] accepts. ok is false for what is no
// super-packet (tun.SegmentNone) and for what can not be cut because o disagrees with the packet: another
// protocol or checksum place, a fragment, IPv6 extension headers, TCP with SYN or RST, no payload, a segment
// size of 0, a checksum that is not partial.
func NewCutter(p []byte, o tun.Offload) (c Cutter, ok bool) {
	v := look(p)
	if v.kind != kindWhole || !offloadFits(p, o, v) {
		return Cutter{}, false
	}
	payload := len(p) - v.headerBytes
	if payload < 1 || o.SegmentBytes < 1 {
		return Cutter{}, false
	}
	c = Cutter{
		packet:       p,
		segmentBytes: int(o.SegmentBytes),
		segments:     (payload + int(o.SegmentBytes) - 1) / int(o.SegmentBytes),
		headerBytes:  v.headerBytes, transport: v.transport,
		pseudoHeader: addPseudoHeader(p, v.protocol),
		ipv6:         p[0]>>4 == 6, udp: v.protocol == ProtocolUDP,
	}
	copy(c.header[:], p[:c.headerBytes])
	if !c.ipv6 {
		c.id = binary.BigEndian.Uint16(p[4:6])
		clear(c.header[2:6])
		clear(c.header[10:12])
		c.ipv4Header = addWords(c.header[:v.transport], 0)
	}
	transport := c.header[v.transport:c.headerBytes]
	if c.udp {
		clear(transport[udpChecksumOffset:])
		return c, true
	}
	clear(transport[tcpChecksumOffset : tcpChecksumOffset+2])
	c.sequence, c.flags = binary.BigEndian.Uint32(transport[4:]), transport[tcpFlagsOffset]
	return c, c.flags&(tcpSYN|tcpRST) == 0
}

// offloadFits reports whether o says of a packet what look found in it.
func offloadFits(p []byte, o tun.Offload, v view) bool {
	if !o.PartialChecksum || int(o.ChecksumStart) != v.transport {
		return false
	}
	switch o.Segmentation {
	case tun.SegmentTCP4:
		return v.protocol == ProtocolTCP && p[0]>>4 == 4 && o.ChecksumOffset == tcpChecksumOffset
	case tun.SegmentTCP6:
		return v.protocol == ProtocolTCP && p[0]>>4 == 6 && o.ChecksumOffset == tcpChecksumOffset
	case tun.SegmentUDP:
		return v.protocol == ProtocolUDP && o.ChecksumOffset == udpChecksumOffset
	}
	return false
}

// Segments is the number of segments, at least 1.
func (c *Cutter) Segments() int { return c.segments }

// HeaderBytes is the length of each segment's IP and transport header, at most [MaxHeaderBytes].
func (c *Cutter) HeaderBytes() int { return c.headerBytes }

// Payload is where in the super-packet the payload of segment k is, and its length, at least 1.
func (c *Cutter) Payload(k int) (offset, length int) {
	offset = c.headerBytes + k*c.segmentBytes
	return offset, min(c.segmentBytes, len(c.packet)-offset)
}

// PutHeader writes the headers of segment k to the first HeaderBytes of dst. With partial the transport
// checksum is left partial; otherwise it is completed, for which the super-packet must still hold the payload
// of segment k.
func (c *Cutter) PutHeader(dst []byte, k int, partial bool) {
	at, payload := c.Payload(k)
	dst = dst[:c.headerBytes]
	copy(dst, c.header[:])
	transportBytes := c.headerBytes - c.transport + payload
	if c.ipv6 {
		binary.BigEndian.PutUint16(dst[4:6], uint16(transportBytes))
	} else {
		c.putIPv4(dst, k, c.transport+transportBytes)
	}
	transport := dst[c.transport:]
	field := tcpChecksumOffset
	if c.udp {
		binary.BigEndian.PutUint16(transport[4:6], uint16(transportBytes))
		field = udpChecksumOffset
	} else {
		flags := c.flags
		if k > 0 {
			flags &^= tcpCWR
		}
		if k < c.segments-1 {
			flags &^= tcpFIN | tcpPSH
		}
		transport[tcpFlagsOffset] = flags
		binary.BigEndian.PutUint32(transport[4:8], c.sequence+uint32(k*c.segmentBytes))
	}
	sum := seed(c.pseudoHeader, transportBytes)
	if !partial {
		sum = finish(Sum(c.packet[at:at+payload], Sum(transport, sum)), c.udp)
	}
	binary.BigEndian.PutUint16(transport[field:field+2], sum)
}

// putIPv4 fills in what differs between the IPv4 headers of segments.
func (c *Cutter) putIPv4(dst []byte, k, totalBytes int) {
	id := c.id + uint16(k)
	binary.BigEndian.PutUint16(dst[2:4], uint16(totalBytes))
	binary.BigEndian.PutUint16(dst[4:6], id)
	acc, carry := bits.Add64(c.ipv4Header, swapped(uint16(totalBytes))+swapped(id), 0)
	binary.BigEndian.PutUint16(dst[10:12], ^fold(acc+carry))
}

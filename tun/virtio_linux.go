package tun

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// virtioHeaderBytes is the length of struct virtio_net_hdr (virtio 1.2 section 5.1.6), the legacy form without a number
// of buffers, in which the kernel's TUN driver puts numbers into the machine's own byte order.
const virtioHeaderBytes = 10

// What the kernel can hand over and we cannot take.
var (
	errTruncated = fmt.Errorf("%w: shorter than its virtio header", ErrUnreadable)
	errKind      = fmt.Errorf("%w: unknown kind of offload", ErrUnreadable)
	errChecksum  = fmt.Errorf("%w: checksum field beyond the packet", ErrUnreadable)
	errSegments  = fmt.Errorf("%w: not a packet that can be cut as asked", ErrUnreadable)
)

// decodeVirtio turns the virtio header of a packet into an Offload that agrees with the packet. A checksum that is not the
// transport's it completes in the packet. The header's own length of headers it does not believe: of forwarded packets
// it is that of the first segment.
func decodeVirtio(header *[virtioHeaderBytes]byte, packet []byte) (Offload, error) {
	partial, kind := header[0]&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0, header[1]
	if !partial && kind == unix.VIRTIO_NET_HDR_GSO_NONE {
		return Offload{}, nil
	}
	o := Offload{
		PartialChecksum: partial,
		ChecksumStart:   binary.NativeEndian.Uint16(header[6:]), ChecksumOffset: binary.NativeEndian.Uint16(header[8:]),
	}
	switch kind &^ unix.VIRTIO_NET_HDR_GSO_ECN {
	case unix.VIRTIO_NET_HDR_GSO_NONE:
	case unix.VIRTIO_NET_HDR_GSO_TCPV4:
		o.Segmentation = SegmentTCP4
	case unix.VIRTIO_NET_HDR_GSO_TCPV6:
		o.Segmentation = SegmentTCP6
	case unix.VIRTIO_NET_HDR_GSO_UDP_L4:
		o.Segmentation = SegmentUDP
	default:
		return Offload{}, errKind
	}
	if o.Segmentation != SegmentNone {
		o.SegmentBytes = binary.NativeEndian.Uint16(header[4:])
		o.CWR = kind&unix.VIRTIO_NET_HDR_GSO_ECN != 0 && o.Segmentation != SegmentUDP
	}
	start, offset := transport(packet)
	if partial && start == int(o.ChecksumStart) && offset == int(o.ChecksumOffset) && o.headerBytes(packet) != 0 {
		return o, nil
	}
	if o.Segmentation != SegmentNone {
		return Offload{}, errSegments
	}
	if !completeChecksum(packet, int(o.ChecksumStart), int(o.ChecksumOffset)) {
		return Offload{}, errChecksum
	}
	return Offload{}, nil
}

// encodeVirtio is the virtio header for an offload that is not refused and whose headers have the given length.
func encodeVirtio(header *[virtioHeaderBytes]byte, o Offload, headerBytes int) {
	*header = [virtioHeaderBytes]byte{}
	if !o.PartialChecksum {
		return
	}
	header[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(header[6:], o.ChecksumStart)
	binary.NativeEndian.PutUint16(header[8:], o.ChecksumOffset)
	switch o.Segmentation {
	case SegmentNone:
		return
	case SegmentTCP4:
		header[1] = unix.VIRTIO_NET_HDR_GSO_TCPV4
	case SegmentTCP6:
		header[1] = unix.VIRTIO_NET_HDR_GSO_TCPV6
	case SegmentUDP:
		header[1] = unix.VIRTIO_NET_HDR_GSO_UDP_L4
	}
	if o.CWR {
		header[1] |= unix.VIRTIO_NET_HDR_GSO_ECN
	}
	binary.NativeEndian.PutUint16(header[2:], uint16(headerBytes))
	binary.NativeEndian.PutUint16(header[4:], o.SegmentBytes)
}

// transport finds where the TCP or UDP header of a whole, unfragmented IP packet begins and where in it the checksum is.
// Of other packets, and of those whose length is not the one they state, it says 0, 0. The header itself may be cut off.
func transport(p []byte) (start, checksumOffset int) {
	if len(p) < 20 {
		return 0, 0
	}
	var protocol byte
	switch p[0] >> 4 {
	case 4:
		const flagsAndOffset = 0x3fff // all but "don't fragment"
		if int(binary.BigEndian.Uint16(p[2:])) != len(p) || binary.BigEndian.Uint16(p[6:])&flagsAndOffset != 0 {
			return 0, 0
		}
		protocol, start = p[9], int(p[0]&0xf)*4
		if start < 20 {
			return 0, 0
		}
	case 6:
		if len(p) < 40 || 40+int(binary.BigEndian.Uint16(p[4:])) != len(p) {
			return 0, 0
		}
		protocol, start = afterExtensions(p)
	}
	switch protocol {
	case unix.IPPROTO_TCP:
		return start, tcpChecksumOffset
	case unix.IPPROTO_UDP:
		return start, udpChecksumOffset
	}
	return 0, 0
}

// afterExtensions walks the extension headers (RFC 8200 section 4) of an IPv6 packet, of at least 40 bytes, that can come
// before the transport header of a packet that is no fragment. Each takes at least 8 bytes of the packet.
func afterExtensions(p []byte) (protocol byte, start int) {
	protocol, start = p[6], 40
	for start+8 <= len(p) {
		switch protocol {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			protocol, start = p[start], start+8+8*int(p[start+1])
		case unix.IPPROTO_AH:
			protocol, start = p[start], start+8+4*int(p[start+1])
		default:
			return protocol, start
		}
	}
	return 0, 0
}

// completeChecksum adds the ones' complement sum (RFC 1071) of a packet from start on and puts its complement at offset
// from there. It reports whether that is inside the packet.
func completeChecksum(p []byte, start, offset int) bool {
	if start+offset+2 > len(p) {
		return false
	}
	var sum uint64
	rest := p[start:]
	for len(rest) >= 4 {
		sum += uint64(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
	}
	if len(rest) >= 2 {
		sum += uint64(binary.BigEndian.Uint16(rest))
		rest = rest[2:]
	}
	if len(rest) == 1 {
		sum += uint64(rest[0]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	sum ^= 0xffff
	if sum == 0 { // UDP's "no checksum"; to every other protocol both are the same number
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(p[start+offset:], uint16(sum))
	return true
}

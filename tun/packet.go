package tun

// Segmentation says how a super-packet is cut (virtio 1.2 section 5.1.6.4). The zero value is SegmentNone.
type Segmentation uint8

// The kinds of segmentation.
const (
	SegmentNone Segmentation = iota // one packet
	SegmentTCP4                     // TCP over IPv4
	SegmentTCP6                     // TCP over IPv6
	SegmentUDP                      // UDP datagrams of one size but for the last, over IPv4 or IPv6
)

// Offload says what is left to do to a packet. The zero value: nothing.
//
// In what a Device reads the fields agree with the packet: with PartialChecksum, ChecksumStart is where the TCP or UDP
// header begins that the IP header, with its extension headers, leads to; ChecksumOffset is that protocol's (16, 6); the
// packet is no fragment, and its IP length is the length of Data. A Segmentation comes with a PartialChecksum, agrees
// with protocol and IP version, has SegmentBytes of at least 1 and all headers, TCP options too, inside Data.
// What the host asks for beyond that is done by the device before it returns the packet.
type Offload struct {
	Segmentation Segmentation
	// SegmentBytes is the payload of each segment but for the last, without any header (virtio gso_size).
	SegmentBytes uint16
	// PartialChecksum means that the transport checksum field holds the sum of the pseudo header, not inverted, and
	// that the rest is to be added (Linux calls it CHECKSUM_PARTIAL).
	PartialChecksum bool
	// ChecksumStart is where in the packet the transport header begins, and ChecksumOffset where in that header the
	// checksum field is; both count with PartialChecksum only.
	ChecksumStart, ChecksumOffset uint16
	// CWR means that of a TCP super-packet's segments only the first carries the CWR flag (RFC 3168 section 6.1.2;
	// VIRTIO_NET_HDR_GSO_ECN).
	CWR bool
}

// Packet is one IP packet with what is left to do to it. For the buffer behind Data see Device.ReadPackets.
type Packet struct {
	Data    []byte
	Offload Offload
}

// refuse reports as an ErrUnwritable what a device with these offloads can not write.
func (o Offloads) refuse(pieces [][]byte, asked Offload) error {
	bytes := 0
	for _, p := range pieces {
		bytes += len(p)
	}
	switch {
	case len(pieces) == 0 || len(pieces) > MaxPieces:
		return errPieces
	case bytes == 0 || bytes > MaxPacketBytes:
		return errLength
	case asked == Offload{}:
		return nil
	case !o.VirtioHeader || !asked.PartialChecksum:
		return errOffload
	}
	switch asked.Segmentation {
	case SegmentNone:
	case SegmentTCP4, SegmentTCP6:
		if !o.TCP {
			return errOffload
		}
	case SegmentUDP:
		if !o.UDP {
			return errOffload
		}
	default:
		return errOffload
	}
	if asked.headerBytes(pieces[0]) == 0 {
		return errHeaders
	}
	return nil
}

// headerBytes is the length of all headers of the packet that begins with first, or 0 if they are not all inside it or
// not what the offload says, which has a PartialChecksum.
func (o Offload) headerBytes(first []byte) int {
	n := int(o.ChecksumStart)
	switch {
	case o.ChecksumOffset == tcpChecksumOffset && o.Segmentation != SegmentUDP && len(first) >= n+tcpHeaderBytes:
		length := int(first[n+12]>>4) * 4
		if length < tcpHeaderBytes {
			return 0
		}
		n += length
	case o.ChecksumOffset == udpChecksumOffset && (o.Segmentation == SegmentNone || o.Segmentation == SegmentUDP):
		n += udpHeaderBytes
	default:
		return 0
	}
	if n > len(first) || o.Segmentation != SegmentNone && o.SegmentBytes == 0 {
		return 0
	}
	version := first[0] >> 4
	if o.Segmentation == SegmentTCP4 && version != 4 || o.Segmentation == SegmentTCP6 && version != 6 {
		return 0
	}
	return n
}

const (
	tcpHeaderBytes, tcpChecksumOffset = 20, 16
	udpHeaderBytes, udpChecksumOffset = 8, 6
)

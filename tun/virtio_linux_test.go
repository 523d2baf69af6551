package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	needsChecksum = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	none, tcp4    = unix.VIRTIO_NET_HDR_GSO_NONE, unix.VIRTIO_NET_HDR_GSO_TCPV4
	tcp6, udpL4   = unix.VIRTIO_NET_HDR_GSO_TCPV6, unix.VIRTIO_NET_HDR_GSO_UDP_L4
	withECN       = unix.VIRTIO_NET_HDR_GSO_ECN
)

// tcpPacket has options of the given length, after IPv6 extension headers if extensions are given.
func tcpPacket(from, to netip.Addr, options, payload int, extensions ...byte) []byte {
	h := make([]byte, 20+options+payload)
	h[12] = byte((20 + options) / 4 << 4)
	protocol := byte(unix.IPPROTO_TCP)
	if len(extensions) > 0 {
		protocol, h = extensions[0], append(extensions[1:], h...)
	}
	return append(ipHeader(from, to, protocol, len(h)), h...)
}

// altered is a copy with one byte changed.
func altered(p []byte, at int, to byte) []byte {
	p = bytes.Clone(p)
	p[at] = to
	return p
}

func TestDecodeVirtio(t *testing.T) {
	four, six := tcpPacket(host4, peer4, 12, 3000), tcpPacket(host6, peer6, 0, 3000)
	datagram := udpPacket(netip.AddrPortFrom(host4, 1), netip.AddrPortFrom(peer4, 2), make([]byte, 3000))
	// Hop-by-hop options of 8 bytes, then a destination options header of 16, then TCP.
	hops := append([]byte{unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS, 0, 1, 4, 0, 0, 0, 0},
		append([]byte{unix.IPPROTO_TCP, 1, 1, 12}, make([]byte, 12)...)...)
	extended := tcpPacket(host6, peer6, 0, 3000, hops...)
	authenticated := tcpPacket(host6, peer6, 0, 30,
		append([]byte{unix.IPPROTO_AH, unix.IPPROTO_TCP, 4}, make([]byte, 22)...)...)
	fragment := tcpPacket(host6, peer6, 0, 30, unix.IPPROTO_FRAGMENT, unix.IPPROTO_TCP, 0, 0, 0, 0, 0, 0, 0)
	partial := func(start, offset uint16) Offload {
		return Offload{PartialChecksum: true, ChecksumStart: start, ChecksumOffset: offset}
	}
	cut := func(s Segmentation, size, start, offset uint16) Offload {
		o := partial(start, offset)
		o.Segmentation, o.SegmentBytes = s, size
		return o
	}
	cwr := cut(SegmentTCP4, 1340, 20, 16)
	cwr.CWR = true
	for _, c := range []struct {
		name   string
		header [virtioHeaderBytes]byte
		packet []byte
		want   Offload
		err    error
	}{
		{"nothing", virtio(0, none, 9, 9, 9), four, Offload{}, nil},
		{"nothing, of no packet", virtio(0, none, 0, 0, 0), nil, Offload{}, nil},
		{"valid checksum", virtio(unix.VIRTIO_NET_HDR_F_DATA_VALID, none, 0, 0, 0), four, Offload{}, nil},
		{"partial TCP", virtio(needsChecksum, none, 0, 20, 16), four, partial(20, 16), nil},
		{"partial UDP", virtio(needsChecksum, none, 0, 20, 6), datagram, partial(20, 6), nil},
		{"TCP4", virtio(needsChecksum, tcp4, 1340, 20, 16), four, cut(SegmentTCP4, 1340, 20, 16), nil},
		{"TCP4 with CWR", virtio(needsChecksum, tcp4|withECN, 1340, 20, 16), four, cwr, nil},
		{"TCP6", virtio(needsChecksum, tcp6, 1320, 40, 16), six, cut(SegmentTCP6, 1320, 40, 16), nil},
		{"TCP6, extended", virtio(needsChecksum, tcp6, 9, 64, 16), extended, cut(SegmentTCP6, 9, 64, 16), nil},
		{"authenticated", virtio(needsChecksum, none, 0, 64, 16), authenticated, partial(64, 16), nil},
		{"UDP", virtio(needsChecksum, udpL4, 1000, 20, 6), datagram, cut(SegmentUDP, 1000, 20, 6), nil},

		{"fragment offload", virtio(needsChecksum, unix.VIRTIO_NET_HDR_GSO_UDP, 1000, 20, 6), datagram, Offload{}, errKind},
		{"unknown", virtio(needsChecksum, 77, 1000, 20, 6), datagram, Offload{}, errKind},
		{"no checksum", virtio(0, tcp4, 1340, 20, 16), four, Offload{}, errSegments},
		{"no size", virtio(needsChecksum, tcp4, 0, 20, 16), four, Offload{}, errSegments},
		{"other version", virtio(needsChecksum, tcp6, 1340, 20, 16), four, Offload{}, errSegments},
		{"other protocol", virtio(needsChecksum, tcp4, 1340, 20, 6), datagram, Offload{}, errSegments},
		{"TCP as UDP", virtio(needsChecksum, udpL4, 1340, 20, 16), four, Offload{}, errSegments},
		{"other start", virtio(needsChecksum, tcp4, 1340, 24, 16), four, Offload{}, errSegments},
		{"other length", virtio(needsChecksum, tcp4, 1340, 20, 16), four[:2000], Offload{}, errSegments},
		{"fragment", virtio(needsChecksum, tcp4, 1340, 20, 16), altered(four, 6, 0x20), Offload{}, errSegments},
		{"a later fragment", virtio(needsChecksum, tcp4, 1340, 20, 16), altered(four, 7, 1), Offload{}, errSegments},
		{"IPv4 header too short", virtio(needsChecksum, tcp4, 9, 16, 16), altered(four, 0, 0x44), Offload{}, errSegments},
		{"TCP header too short", virtio(needsChecksum, tcp4, 9, 20, 16), altered(four, 32, 0x40), Offload{}, errSegments},
		{
			"options beyond the end", virtio(needsChecksum, tcp4, 9, 20, 16),
			altered(tcpPacket(host4, peer4, 0, 39), 32, 0xf0),
			Offload{},
			errSegments,
		},
		{
			"TCP header beyond the end", virtio(needsChecksum, tcp4, 9, 20, 16),
			append(ipHeader(host4, peer4, unix.IPPROTO_TCP, 19), make([]byte, 19)...),
			Offload{},
			errSegments,
		},
		{"nothing to cut", virtio(needsChecksum, tcp4, 9, 20, 16), nil, Offload{}, errSegments},
		{"version 5", virtio(needsChecksum, tcp4, 9, 0, 16), altered(four, 0, 0x55), Offload{}, errSegments},
		{"checksum beyond the end", virtio(needsChecksum, none, 0, 65535, 65535), six, Offload{}, errChecksum},
		{"checksum at the end", virtio(needsChecksum, none, 0, 3050, 1), four[:3052], Offload{}, errChecksum},
		{
			"extension beyond the end", virtio(needsChecksum, tcp6, 9, 64, 16),
			altered(extended, 41, 255),
			Offload{},
			errSegments,
		},
		{"IPv6 fragment", virtio(needsChecksum, tcp6, 9, 48, 16), fragment, Offload{}, errSegments},
	} {
		packet := bytes.Clone(c.packet)
		got, err := decodeVirtio(&c.header, packet)
		if got != c.want || !errors.Is(err, c.err) || err != nil && !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: %+v, %v; want %+v, %v", c.name, got, err, c.want, c.err)
		}
		if !bytes.Equal(packet, c.packet) {
			t.Errorf("%s: changed the packet", c.name)
		}
		if err == nil && got != (Offload{}) {
			var again [virtioHeaderBytes]byte
			encodeVirtio(&again, got, got.headerBytes(packet))
			c.header[2], c.header[3] = again[2], again[3] // which decoding does not look at
			if again != c.header {
				t.Errorf("%s: encoded %x, was %x", c.name, again, c.header)
			}
		}
	}
}

func TestHeaderLengthForTheHost(t *testing.T) {
	extended := tcpPacket(host6, peer6, 8, 3000, unix.IPPROTO_HOPOPTS, unix.IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0)
	for _, c := range []struct {
		packet []byte
		o      Offload
		want   uint16
	}{
		{tcpPacket(host4, peer4, 12, 3000), Offload{SegmentTCP4, 1340, true, 20, 16, false}, 52},
		{tcpPacket(host6, peer6, 0, 3000), Offload{SegmentTCP6, 1340, true, 40, 16, false}, 60},
		{extended, Offload{SegmentTCP6, 1340, true, 48, 16, false}, 76},
		{make([]byte, 3000), Offload{SegmentUDP, 1340, true, 40, 6, false}, 48},
	} {
		var h [virtioHeaderBytes]byte
		encodeVirtio(&h, c.o, c.o.headerBytes(c.packet))
		if got := binary.NativeEndian.Uint16(h[2:]); got != c.want {
			t.Errorf("%+v: %d, want %d", c.o, got, c.want)
		}
	}
}

func TestCompleteChecksum(t *testing.T) {
	for n := range 40 {
		p := make([]byte, 5+n)
		for i := range p {
			p[i] = byte(200 + 37*i)
		}
		p[3], p[4] = 0, 0
		if !completeChecksum(p, 1, 2) || onesSum(p[1:]) != 0xffff {
			t.Errorf("%d bytes: %x", n, p)
		}
	}
	zero := []byte{0xff, 0xff, 0, 0}
	if !completeChecksum(zero, 0, 2) || zero[2] != 0xff || zero[3] != 0xff {
		t.Errorf("a checksum of zero is written as %x, which UDP takes for none", zero[2:])
	}
	if completeChecksum(make([]byte, 4), 1, 2) {
		t.Error("beyond the end")
	}
}

// FuzzDecodeVirtio: whatever comes, an offload that is returned agrees with the packet, and may be written.
func FuzzDecodeVirtio(f *testing.F) {
	add := func(h [virtioHeaderBytes]byte, p []byte) { f.Add(append(h[:], p...)) }
	add(virtio(needsChecksum, tcp4|withECN, 7, 20, 16), tcpPacket(host4, peer4, 12, 30))
	add(virtio(needsChecksum, udpL4, 7, 40, 6), udpPacket(
		netip.AddrPortFrom(host6, 1), netip.AddrPortFrom(peer6, 2), make([]byte, 30)))
	add(virtio(needsChecksum, tcp6, 7, 56, 16), tcpPacket(host6, peer6, 0, 30,
		unix.IPPROTO_DSTOPTS, unix.IPPROTO_TCP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
	add(virtio(needsChecksum, none, 7, 30, 2), tcpPacket(host4, peer4, 0, 31))
	all := Offloads{VirtioHeader: true, TCP: true, UDP: true}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < virtioHeaderBytes {
			return
		}
		header, packet := [virtioHeaderBytes]byte(in), in[virtioHeaderBytes:]
		before := slices.Clone(packet)
		o, err := decodeVirtio(&header, packet)
		switch {
		case err != nil:
			if !errors.Is(err, ErrUnreadable) || o != (Offload{}) {
				t.Errorf("%+v, %v", o, err)
			}
			return
		case o == Offload{}:
			for i := range packet { // at most one checksum was completed
				start := int(binary.NativeEndian.Uint16(header[6:]))
				at := start + int(binary.NativeEndian.Uint16(header[8:]))
				if packet[i] != before[i] && (i < at || i > at+1) {
					t.Errorf("byte %d changed", i)
				}
			}
			return
		}
		headers := o.headerBytes(packet)
		if headers < int(o.ChecksumStart)+8 || headers > len(packet) ||
			int(o.ChecksumStart+o.ChecksumOffset)+2 > headers || o.Segmentation != SegmentNone && o.SegmentBytes == 0 {
			t.Errorf("%+v of %d bytes", o, len(packet))
		}
		if err := all.refuse([][]byte{packet[:headers], packet[headers:]}, o); err != nil {
			t.Errorf("read, but not to be written: %+v: %v", o, err)
		}
	})
}

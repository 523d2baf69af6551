//go:build linux || darwin

package udp

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// parseControl takes what the kernel tells beside a datagram. Messages of other kinds are no business of ours, and of
// what cannot be parsed nothing is taken.
func (m *Message) parseControl(b []byte) {
	m.Local, m.InterfaceIndex, m.ArrivedNanos, m.ECN, m.SegmentBytes = netip.Addr{}, 0, 0, 0, len(m.Data)
	m.Fragmented = false
	for len(b) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return
		}
		m.control(h.Level, h.Type, data)
		b = rest
	}
}

func (m *Message) control(level, kind int32, data []byte) {
	switch {
	case level == unix.IPPROTO_IP && kind == receivedTOS && len(data) >= 1:
		m.ECN = data[0] & ecnMask
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_TCLASS && len(data) >= 4:
		m.ECN = uint8(binary.NativeEndian.Uint32(data)) & ecnMask
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= packetInfo4Bytes:
		// struct in_pktinfo: interface, address to answer from, address of the header.
		m.InterfaceIndex = binary.NativeEndian.Uint32(data)
		m.Local = netip.AddrFrom4([4]byte(data[8:12]))
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= packetInfo6Bytes:
		m.Local = netip.AddrFrom16([16]byte(data[:16])).Unmap()
		m.InterfaceIndex = binary.NativeEndian.Uint32(data[16:20])
	default:
		if n := segmentBytes(level, kind, data); n > 0 && n < len(m.Data) {
			m.SegmentBytes = n
		} else if t := arrivedNanos(level, kind, data); t != 0 {
			m.ArrivedNanos = t
		} else if isFragmentSize(level, kind) {
			m.Fragmented = true
		}
	}
}

const (
	packetInfo4Bytes = 12
	packetInfo6Bytes = 20
)

// controlMessage appends a control message of n bytes of data, which it returns for the caller to fill.
func controlMessage(b []byte, level, kind int32, n int) (whole, data []byte) {
	start := len(b)
	b = append(b, make([]byte, unix.CmsgSpace(n))...)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[start]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(n))
	data = b[start+unix.CmsgLen(0):]
	return b, data[:n]
}

// appendSendControl appends what a send to a destination says beside its data: the source, and ECN if there is any.
func appendSendControl(b []byte, d *Destination, ecn uint8) []byte {
	var data []byte
	ipv4 := d.to.Addr().Is4()
	if d.from.IsValid() || d.index != 0 {
		b = appendPacketInfo(b, ipv4, d.from, d.index, true)
	}
	switch {
	case ecn == 0:
	case ipv4:
		b, data = controlMessage(b, unix.IPPROTO_IP, unix.IP_TOS, sentTOSBytes)
		if sentTOSBytes == 1 {
			data[0] = ecn
		} else {
			binary.NativeEndian.PutUint32(data, uint32(ecn))
		}
	default:
		b, data = controlMessage(b, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4)
		binary.NativeEndian.PutUint32(data, uint32(ecn))
	}
	return b
}

// appendReceiveControl appends what the kernel would have told beside a datagram.
func appendReceiveControl(b []byte, ipv4 bool, local netip.Addr, index uint32, ecn uint8) []byte {
	var data []byte
	if ipv4 {
		b, data = controlMessage(b, unix.IPPROTO_IP, receivedTOS, 1)
		data[0] = ecn
	} else {
		b, data = controlMessage(b, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4)
		binary.NativeEndian.PutUint32(data, uint32(ecn))
	}
	if local.IsValid() {
		b = appendPacketInfo(b, ipv4, local, index, false)
	}
	return b
}

// appendPacketInfo appends an address and an interface. IPv4 has one field for the address to send from, and another for
// that of a datagram received.
func appendPacketInfo(b []byte, ipv4 bool, addr netip.Addr, index uint32, toSend bool) []byte {
	var data []byte
	if !ipv4 {
		b, data = controlMessage(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, packetInfo6Bytes)
		if addr.IsValid() {
			a := addr.As16()
			copy(data, a[:])
		}
		binary.NativeEndian.PutUint32(data[16:], index)
		return b
	}
	b, data = controlMessage(b, unix.IPPROTO_IP, unix.IP_PKTINFO, packetInfo4Bytes)
	binary.NativeEndian.PutUint32(data, index)
	if addr.IsValid() {
		a := addr.As4()
		copy(data[4:8], a[:])
		if !toSend {
			copy(data[8:12], a[:])
		}
	}
	return b
}

package udp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// sockaddr is struct sockaddr_in or sockaddr_in6, as sendmsg and bind want it.
type sockaddr struct {
	raw   [unix.SizeofSockaddrInet6]byte
	bytes uint32
}

// Offsets in both structures, and in that of IPv6.
const (
	sockaddrPort  = 2
	sockaddrIPv4  = 4
	sockaddrIPv6  = 8
	sockaddrScope = 24
)

// newSockaddr writes an address for a socket, which is an IPv6 one if ipv6 is set and wants IPv4 addresses mapped. The
// error is ErrFamily, or that a zone is no interface.
func newSockaddr(a netip.AddrPort, ipv6 bool) (s sockaddr, err error) {
	addr := a.Addr().Unmap()
	family := uint16(unix.AF_INET6)
	switch {
	case !addr.IsValid(), addr.Is6() && !ipv6:
		return sockaddr{}, ErrFamily
	case !ipv6:
		family, s.bytes = unix.AF_INET, unix.SizeofSockaddrInet4
		b := addr.As4()
		copy(s.raw[sockaddrIPv4:], b[:])
	case addr.Is4():
		s.bytes = unix.SizeofSockaddrInet6
		b := addr.As16()
		copy(s.raw[sockaddrIPv6:], b[:])
	default:
		s.bytes = unix.SizeofSockaddrInet6
		b := addr.As16()
		copy(s.raw[sockaddrIPv6:], b[:])
		index, err := zoneIndex(addr.Zone())
		if err != nil {
			return sockaddr{}, err
		}
		binary.NativeEndian.PutUint32(s.raw[sockaddrScope:], index)
	}
	binary.NativeEndian.PutUint16(s.raw[:], family)
	binary.BigEndian.PutUint16(s.raw[sockaddrPort:], a.Port())
	return s, nil
}

// zoneIndex is the number of an interface that a zone names, by its number or its name.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, err)
	}
	return uint32(i.Index), nil
}

// zones remembers the zone of the last link-local sender, which there is one of at most.
type zones struct {
	index uint32
	name  string
}

// addrPort reads what the kernel wrote. Its family is one of the two.
func (z *zones) addrPort(raw *[unix.SizeofSockaddrInet6]byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(raw[sockaddrPort:])
	if binary.NativeEndian.Uint16(raw[:]) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[sockaddrIPv4:sockaddrIPv4+4])), port)
	}
	addr := netip.AddrFrom16([16]byte(raw[sockaddrIPv6 : sockaddrIPv6+16])).Unmap()
	if index := binary.NativeEndian.Uint32(raw[sockaddrScope:]); index != 0 {
		if z.index != index {
			z.index, z.name = index, strconv.FormatUint(uint64(index), 10)
		}
		addr = addr.WithZone(z.name)
	}
	return netip.AddrPortFrom(addr, port)
}

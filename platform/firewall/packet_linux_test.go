package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
)

func ap(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

// sum is the ones' complement sum of RFC 1071 over several parts of even length, but for the last.
func sum(parts ...[]byte) uint16 {
	total := uint32(0)
	for _, p := range parts {
		for len(p) > 1 {
			total += uint32(binary.BigEndian.Uint16(p))
			p = p[2:]
		}
		if len(p) == 1 {
			total += uint32(p[0]) << 8
		}
	}
	for total>>16 != 0 {
		total = total&0xffff + total>>16
	}
	return ^uint16(total)
}

// ipPacket wraps a transport segment whose checksum field, at the given offset, is filled in.
func ipPacket(src, dst netip.Addr, protocol byte, segment []byte, checksumAt int) []byte {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(segment)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(protocol))
	binary.BigEndian.PutUint16(segment[checksumAt:], sum(pseudo, segment))
	if src.Is6() {
		head := []byte{0x60, 0, 0, 0, byte(len(segment) >> 8), byte(len(segment)), protocol, 64}
		return append(append(append(head, src.AsSlice()...), dst.AsSlice()...), segment...)
	}
	head := make([]byte, 20, 20+len(segment))
	head[0], head[8], head[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(head[2:], uint16(20+len(segment)))
	copy(head[12:], src.AsSlice())
	copy(head[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(head[10:], sum(head))
	return append(head, segment...)
}

func udpPacket(src, dst netip.AddrPort, payload string) []byte {
	segment := binary.BigEndian.AppendUint16(nil, src.Port())
	segment = binary.BigEndian.AppendUint16(segment, dst.Port())
	segment = binary.BigEndian.AppendUint16(segment, uint16(8+len(payload)))
	segment = append(append(segment, 0, 0), payload...)
	return ipPacket(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, segment, 6)
}

// synPacket is a TCP segment with the given flags and an MSS option.
func synPacket(src, dst netip.AddrPort, flags byte, mss uint16) []byte {
	segment := make([]byte, 24)
	binary.BigEndian.PutUint16(segment[0:], src.Port())
	binary.BigEndian.PutUint16(segment[2:], dst.Port())
	segment[12], segment[13] = 6<<4, flags
	binary.BigEndian.PutUint16(segment[14:], 65535)
	segment[20], segment[21] = 2, 4
	binary.BigEndian.PutUint16(segment[22:], mss)
	return ipPacket(src.Addr(), dst.Addr(), unix.IPPROTO_TCP, segment, 16)
}

// parsed is what a test looks at in a packet.
type parsedPacket struct {
	src, dst  netip.AddrPort
	protocol  byte
	transport []byte
}

func parsePacket(p []byte) parsedPacket {
	var out parsedPacket
	var src, dst netip.Addr
	if p[0]>>4 == 6 {
		src, _ = netip.AddrFromSlice(p[8:24])
		dst, _ = netip.AddrFromSlice(p[24:40])
		out.protocol, out.transport = p[6], p[40:]
	} else {
		src, _ = netip.AddrFromSlice(p[12:16])
		dst, _ = netip.AddrFromSlice(p[16:20])
		out.protocol, out.transport = p[9], p[20:]
	}
	if len(out.transport) >= 4 {
		out.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(out.transport))
		out.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(out.transport[2:]))
	}
	return out
}

func (p parsedPacket) mss() uint16 { return binary.BigEndian.Uint16(p.transport[22:]) }

func inject(t *testing.T, tun *os.File, packet []byte) {
	t.Helper()
	if _, err := tun.Write(packet); err != nil {
		t.Fatal(err)
	}
}

// next reads packets of a protocol from a TUN device until one is for the given port.
func next(t *testing.T, tun *os.File, protocol byte, port uint16) (p parsedPacket) {
	t.Helper()
	hosttest.ReadUntil(t, tun, fmt.Sprintf("a packet to port %d", port), func(packet []byte) bool {
		p = parsePacket(packet)
		return p.protocol == protocol && p.dst.Port() == port
	})
	return p
}

// listen opens a UDP socket in the calling thread's namespace.
func listen(t *testing.T, at netip.AddrPort) int {
	t.Helper()
	family := unix.AF_INET6
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if at.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	timeout := unix.Timeval{Sec: 10}
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	err = errors.Join(err, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout), unix.Bind(fd, sa))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func receive(t *testing.T, fd int) string {
	t.Helper()
	buffer := make([]byte, 2048)
	n, _, err := unix.Recvfrom(fd, buffer, 0)
	if err != nil {
		t.Fatalf("waiting for a datagram: %v", err)
	}
	return string(buffer[:n])
}

package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// marker is in every packet that must not be seen in clear.
const marker = "AETHERTUNNEL-E2E-THIS-IS-INNER-TRAFFIC"

// A capture listens on an interface and sorts out frames that have no business there.
type capture struct {
	file    *os.File
	allowed func(frame []byte) bool
	ended   sync.WaitGroup

	mu    sync.Mutex // guards the rest
	seen  int        // all frames
	bad   []string
	badly int
}

// maxBadFrames is how many frames a capture keeps.
const maxBadFrames = 20

// capture begins to listen on an interface.
func (m *machine) capture(device string, allowed func(frame []byte) bool) *capture {
	m.t.Helper()
	c := &capture{allowed: allowed}
	err := m.Do(func() error {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		protocol := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(protocol))
		if err != nil {
			return err
		}
		c.file = os.NewFile(uintptr(fd), "capture on "+device)
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
		if err != nil && !errors.Is(err, unix.EPERM) { // root of a user namespace has to do without
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index})
	})
	if err != nil {
		m.t.Fatalf("capture on %s/%s: %v", m.Name(), device, err)
	}
	c.ended.Go(c.read)
	m.t.Cleanup(c.close)
	return c
}

func (c *capture) close() {
	_ = c.file.Close() // a second time at the end of the test
	c.ended.Wait()
}

func (c *capture) read() {
	frame := make([]byte, 1<<16)
	for {
		n, err := c.file.Read(frame)
		if err != nil {
			return
		}
		good := c.allowed(frame[:n])
		c.mu.Lock()
		c.seen++
		if !good {
			c.badly++
			if len(c.bad) < maxBadFrames {
				c.bad = append(c.bad, describe(frame[:n]))
			}
		}
		c.mu.Unlock()
	}
}

// mustBeClean ends the capture and fails the test when it has seen something that it must not.
func (c *capture) mustBeClean(m *machine, what string) {
	m.t.Helper()
	c.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.badly > 0 {
		m.t.Errorf("%s: %d of %d frames leak:", what, c.badly, c.seen)
		for _, frame := range c.bad {
			m.t.Error(frame)
		}
	}
	if c.seen == 0 {
		m.t.Errorf("%s: nothing was captured, so nothing was shown", what)
	}
}

// A datagram is what the captures need to know of a frame.
type datagram struct {
	from, to netip.AddrPort // ports are 0 unless it is UDP
	protocol int            // of IP
	icmp     byte           // type
}

// parseFrame reads an Ethernet frame; ok is false for anything but IP.
func parseFrame(frame []byte) (d datagram, ok bool) {
	if len(frame) < 14 {
		return d, false
	}
	packet := frame[14:]
	var from, to netip.Addr
	var rest []byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		h, err := ipv4.ParseHeader(packet)
		if err != nil || h.Len > len(packet) {
			return d, false
		}
		from, to = netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
		d.protocol, rest = h.Protocol, packet[h.Len:]
	case unix.ETH_P_IPV6:
		h, err := ipv6.ParseHeader(packet)
		if err != nil {
			return d, false
		}
		from, to = netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
		d.protocol, rest = h.NextHeader, packet[40:]
		if d.protocol == unix.IPPROTO_HOPOPTS && len(rest) >= 8 { // multicast listener reports have it
			d.protocol, rest = int(rest[0]), rest[min(len(rest), 8*(int(rest[1])+1)):]
		}
	default:
		return d, false
	}
	d.from, d.to = netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 0)
	switch {
	case d.protocol == unix.IPPROTO_UDP && len(rest) >= 8:
		d.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(rest))
		d.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(rest[2:]))
	case d.protocol == unix.IPPROTO_ICMP || d.protocol == unix.IPPROTO_ICMPV6:
		if len(rest) > 0 {
			d.icmp = rest[0]
		}
	}
	return d, true
}

func describe(frame []byte) string {
	d, ok := parseFrame(frame)
	if !ok {
		return fmt.Sprintf("frame %x", frame[:min(len(frame), 64)])
	}
	return fmt.Sprintf("protocol %d type %d from %s to %s, marked %t", d.protocol, d.icmp, d.from, d.to,
		bytes.Contains(frame, []byte(marker)))
}

// onlyTheTunnel allows what a tunnel to a UDP port may show on its underlay: the port's own packets, the
// errors of a host whose port is closed, and the address resolution of the link.
func onlyTheTunnel(port uint16) func(frame []byte) bool {
	return func(frame []byte) bool {
		d, ok := parseFrame(frame)
		if !ok {
			return len(frame) >= 14 && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_ARP
		}
		if bytes.Contains(frame, []byte(marker)) {
			return false
		}
		switch d.protocol {
		case unix.IPPROTO_UDP:
			return underlay(d) && (d.from.Port() == port || d.to.Port() == port)
		case unix.IPPROTO_ICMP:
			return underlay(d) && d.icmp == byte(ipv4.ICMPTypeDestinationUnreachable)
		case unix.IPPROTO_ICMPV6:
			discovery := d.icmp >= byte(ipv6.ICMPTypeRouterSolicitation) &&
				d.icmp <= byte(ipv6.ICMPTypeNeighborAdvertisement)
			return discovery || d.icmp == byte(ipv6.ICMPTypeVersion2MulticastListenerReport) ||
				underlay(d) && d.icmp == byte(ipv6.ICMPTypeDestinationUnreachable)
		}
		return false
	}
}

// underlay reports whether both ends are addresses of the cable between the usual two machines.
func underlay(d datagram) bool {
	for _, a := range []netip.Addr{d.from.Addr(), d.to.Addr()} {
		switch a.String() {
		case gatewayUnderlay4, laptopUnderlay4, gatewayUnderlay6, laptopUnderlay6:
		default:
			return false
		}
	}
	return true
}

// onlyLinkTalk allows what the kernel says by itself on a link that nobody uses.
func onlyLinkTalk(frame []byte) bool {
	d, ok := parseFrame(frame)
	if !ok {
		return len(frame) >= 14 && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_ARP
	}
	return d.protocol == unix.IPPROTO_ICMPV6 && !bytes.Contains(frame, []byte(marker)) &&
		d.icmp >= byte(ipv6.ICMPTypeRouterSolicitation)
}

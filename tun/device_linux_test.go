package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// The device's host is .1 and ::1, and .2 and ::2 are behind the device.
var (
	host4, peer4 = netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.2")
	host6, peer6 = netip.MustParseAddr("fd99::1"), netip.MustParseAddr("fd99::2")
)

// withDevice runs f with a device that is up and has addresses, in a network of its own.
func withDevice(t *testing.T, f func(d Device) error) {
	t.Helper()
	withConfig(t, Config{Name: "at0", MTU: 1380}, f)
}

// withConfig is withDevice for a device called at0 made in another way.
func withConfig(t testing.TB, c Config, f func(d Device) error) {
	t.Helper()
	inNetwork(t, func() error {
		d, err := c.Create()
		if err != nil {
			return err
		}
		return inUse(d, f)
	})
}

// withDriver is withDevice for a queue with flags of its own.
func withDriver(t testing.TB, flags uint16, f func(d *native) error) {
	t.Helper()
	inNetwork(t, func() error {
		dev, err := openAs("at0", 1380, flags)
		if err != nil {
			return err
		}
		d := &native{dev: dev, drained: make(chan struct{})}
		go d.drainEvents()
		if err := d.configure(Config{}); err != nil {
			return errors.Join(err, d.Close())
		}
		return inUse(d, func(Device) error { return f(d) })
	})
}

// inUse gives at0 addresses, sets it up, runs f and closes it.
func inUse(d Device, f func(d Device) error) error {
	link, err := netlink.LinkByName("at0")
	if err != nil {
		return errors.Join(err, d.Close())
	}
	for _, a := range []netip.Addr{host4, host6} {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		address := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}}
		if a.Is6() {
			address.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, address); err != nil {
			return errors.Join(fmt.Errorf("add %v: %w", a, err), d.Close())
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return errors.Join(err, d.Close())
	}
	return errors.Join(untilLocal(host6), f(d), d.Close())
}

// untilLocal waits until the host takes packets to an address: IPv6 adds the route for it in the background.
func untilLocal(a netip.Addr) error {
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		routes, err := netlink.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		runtime.Gosched()
	}
	return fmt.Errorf("%v did not become an address of the host", a)
}

// next reads packets until one is to the given address; the host sends some of its own accord (MLD, router
// solicitations). A checksum left to the device's reader is completed.
func next(d Device, to netip.Addr) (Packet, error) {
	packets := slots(1)
	buf := packets[0].Data
	for {
		packets[0].Data = buf
		if n, err := d.ReadPackets(packets, 0); n != 1 || err != nil {
			return Packet{}, fmt.Errorf("ReadPackets: %d, %w", n, err)
		}
		p := packets[0]
		if destination(p.Data) != to {
			continue
		}
		o := p.Offload
		if o.PartialChecksum && o.Segmentation == SegmentNone &&
			!completeChecksum(p.Data, int(o.ChecksumStart), int(o.ChecksumOffset)) {
			return Packet{}, fmt.Errorf("checksum at %d+%d of %d bytes", o.ChecksumStart, o.ChecksumOffset, len(p.Data))
		}
		return p, nil
	}
}

func destination(p []byte) netip.Addr {
	if p[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(p[16:20]))
	}
	return netip.AddrFrom16([16]byte(p[24:40]))
}

// udpPacket makes one with both checksums.
func udpPacket(from, to netip.AddrPort, payload []byte) []byte {
	u := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(u, from.Port())
	binary.BigEndian.PutUint16(u[2:], to.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(8+len(payload)))
	u = append(u, payload...)
	addresses := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	sum := onesSum(append(addresses, 0, unix.IPPROTO_UDP, byte(len(u)>>8), byte(len(u))), u)
	binary.BigEndian.PutUint16(u[6:], ^sum)
	return append(ipHeader(from.Addr(), to.Addr(), unix.IPPROTO_UDP, len(u)), u...)
}

func ipHeader(from, to netip.Addr, protocol byte, payloadBytes int) []byte {
	if from.Is4() {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(h[2:], uint16(20+payloadBytes))
		copy(h[12:], from.AsSlice())
		copy(h[16:], to.AsSlice())
		binary.BigEndian.PutUint16(h[10:], ^onesSum(h))
		return h
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, protocol, 64
	binary.BigEndian.PutUint16(h[4:], uint16(payloadBytes))
	copy(h[8:], from.AsSlice())
	copy(h[24:], to.AsSlice())
	return h
}

// onesSum is the ones' complement sum (RFC 1071) of parts of even length, but for the last.
func onesSum(parts ...[]byte) uint16 {
	var s uint32
	for _, b := range parts {
		for i := range b {
			s += uint32(b[i]) << (8 * (1 - i%2))
		}
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

func TestPacketsCross(t *testing.T) {
	for _, c := range []struct{ host, peer netip.Addr }{{host4, peer4}, {host6, peer6}} {
		withDevice(t, func(d Device) error {
			local, remote := netip.AddrPortFrom(c.host, 7000), netip.AddrPortFrom(c.peer, 7001)
			s, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(local), net.UDPAddrFromAddrPort(remote))
			if err != nil {
				return err
			}
			defer s.Close()
			if _, err := s.Write([]byte("to the tunnel")); err != nil {
				return err
			}
			p, err := next(d, c.peer)
			if err != nil {
				return err
			}
			got := p.Data
			want := udpPacket(local, remote, []byte("to the tunnel"))
			if c.host.Is4() { // the host chooses identification and flags
				copy(want[4:8], got[4:8])
				want[10], want[11] = 0, 0
				binary.BigEndian.PutUint16(want[10:], ^onesSum(want[:20]))
			} else {
				copy(want[1:4], got[1:4]) // and the flow label
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%v: read %x\nwant %x", c.host, got, want)
			}
			for _, want := range []string{"one", "three"} {
				back := udpPacket(remote, local, []byte(want))
				if err := d.WritePacket([][]byte{back}, Offload{}); err != nil {
					return err
				}
				b := make([]byte, 100)
				if err := s.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
					return err
				}
				if n, err := s.Read(b); err != nil || string(b[:n]) != want {
					t.Errorf("%v: the host got %q, %v; want %q", c.host, b[:n], err, want)
				}
			}
			return nil
		})
	}
}

// TestHostAnswersEcho: the host's own stack takes what we write and its answer comes out.
func TestHostAnswersEcho(t *testing.T) {
	withDevice(t, func(d Device) error {
		echo := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 5, Seq: 6, Data: []byte("hello")}}
		m, err := echo.Marshal(nil)
		if err != nil {
			return err
		}
		p := append(ipHeader(peer4, host4, unix.IPPROTO_ICMP, len(m)), m...)
		if err := d.WritePacket([][]byte{p}, Offload{}); err != nil {
			return err
		}
		answer, err := next(d, peer4)
		if err != nil {
			return err
		}
		parsed, err := icmp.ParseMessage(unix.IPPROTO_ICMP, answer.Data[20:])
		if err != nil {
			return err
		}
		if parsed.Type != ipv4.ICMPTypeEchoReply || !reflect.DeepEqual(parsed.Body, echo.Body) {
			t.Errorf("got %+v", parsed)
		}
		return nil
	})
}

// sendSegments sends several datagrams as one super-packet (UDP_SEGMENT).
func sendSegments(segments, bytesEach int) error {
	s, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(peer4, 7001)))
	if err != nil {
		return err
	}
	defer s.Close()
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, bytesEach)
	}); err != nil || optErr != nil {
		return errors.Join(err, optErr)
	}
	_, err = s.Write(bytes.Repeat([]byte{9}, segments*bytesEach))
	return err
}

// TestOffloadsAreTrue asks the kernel in other ways than Offloads does.
func TestOffloadsAreTrue(t *testing.T) {
	withDevice(t, func(d Device) error {
		o := d.Offloads()
		tso, err := ethtool("at0", unix.ETHTOOL_GTSO)
		if err != nil {
			return err
		}
		if !o.VirtioHeader || o.TCP != (tso != 0) || !o.TCP {
			t.Errorf("offloads %+v, TSO %d", o, tso)
		}
		if err := sendSegments(3, 500); err != nil {
			return err
		}
		p, err := next(d, peer4)
		if err != nil {
			return err
		}
		// Without UDP offload the kernel cuts.
		if whole := p.Offload.Segmentation == SegmentUDP && len(p.Data) == 28+3*500; o.UDP != whole {
			t.Errorf("offloads %+v, and a super-packet of 3 came as %d bytes, %+v", o, len(p.Data), p.Offload)
		}
		if err := d.Close(); err != nil {
			return err
		}
		if d.Offloads() != o {
			t.Errorf("offloads of the closed device: %+v", d.Offloads())
		}
		return nil
	})
}

func ethtool(name string, command uint32) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return ethtoolValue(fd, name, command)
}

// TestMTURaisedByOthers: packets longer than the MTU we made the device with, alone and in a super-packet.
func TestMTURaisedByOthers(t *testing.T) {
	withDevice(t, func(d Device) error {
		link, err := netlink.LinkByName("at0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMTU(link, 9000); err != nil {
			return err
		}
		for _, segments := range []int{1, 3} {
			if err := sendSegments(segments, 8000); err != nil {
				return err
			}
			for left := segments * 8000; left > 0; {
				p, err := next(d, peer4)
				if err != nil {
					return err
				}
				o := p.Offload
				if len(p.Data) != 8028 && (o.Segmentation != SegmentUDP || o.SegmentBytes != 8000) {
					t.Errorf("%d segments: packet of %d bytes, %+v", segments, len(p.Data), o)
				}
				left -= len(p.Data) - 28
			}
		}
		return nil
	})
}

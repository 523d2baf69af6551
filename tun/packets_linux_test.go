package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mirror sends the host its own packets back from where they went to, with addresses swapped, which no checksum minds;
// so the host's stack is at both ends of a connection. Super-packets are written in pieces, as a tunnel joins them.
type mirror struct {
	d     Device
	alter func(Packet) // changes a packet on its way, if not nil

	seen    map[Segmentation]int // packets
	longest map[Segmentation]int // bytes
	partial int                  // packets with a partial checksum
	cwr     int                  // super-packets with CWR
	done    chan error
}

func newMirror(t *testing.T, d Device, alter func(Packet)) *mirror {
	t.Helper()
	m := &mirror{
		d: d, alter: alter, seen: map[Segmentation]int{}, longest: map[Segmentation]int{}, done: make(chan error, 1),
	}
	go func() { m.done <- m.run() }()
	return m
}

// stop closes the device and returns what went wrong in the mirror.
func (m *mirror) stop() error {
	err := m.d.Close()
	if ended := <-m.done; !errors.Is(ended, ErrClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

func (m *mirror) run() error {
	packets, bufs := make([]Packet, 4), make([][]byte, 4)
	for i := range bufs {
		bufs[i] = make([]byte, Headroom+MaxPacketBytes)
	}
	for {
		for i := range packets {
			packets[i].Data = bufs[i]
		}
		n, err := m.d.ReadPackets(packets, 1<<17)
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("ReadPackets did not wait")
		}
		for i, p := range packets[:n] {
			if &p.Data[0] != &bufs[i][Headroom] {
				return fmt.Errorf("packet %d is not behind the headroom of its buffer", i)
			}
			if to := destination(p.Data); to != peer4 && to != peer6 {
				continue
			}
			if err := m.back(p); err != nil {
				return err
			}
		}
	}
}

func (m *mirror) back(p Packet) error {
	o := p.Offload
	m.seen[o.Segmentation]++
	m.longest[o.Segmentation] = max(m.longest[o.Segmentation], len(p.Data))
	if o.CWR {
		m.cwr++
	}
	if o.PartialChecksum {
		m.partial++
		if err := checkPartial(p); err != nil {
			return err
		}
	}
	if m.alter != nil {
		m.alter(p)
	}
	if destination(p.Data).Is4() {
		swap(p.Data[12:16], p.Data[16:20])
	} else {
		swap(p.Data[8:24], p.Data[24:40])
	}
	return m.d.WritePacket(inPieces(p), o)
}

func swap(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}

// inPieces gives the headers and then the segments, in copies of their own.
func inPieces(p Packet) (pieces [][]byte) {
	if p.Offload.Segmentation == SegmentNone {
		return [][]byte{p.Data}
	}
	headers := p.Offload.headerBytes(p.Data)
	pieces = append(pieces, bytes.Clone(p.Data[:headers]))
	rest := p.Data[headers:]
	size := max(int(p.Offload.SegmentBytes), (len(rest)+MaxPieces-2)/(MaxPieces-1))
	for len(rest) > 0 {
		n := min(size, len(rest))
		pieces, rest = append(pieces, bytes.Clone(rest[:n])), rest[n:]
	}
	return pieces
}

// checkPartial checks an Offload against the packet without the code under test.
func checkPartial(p Packet) error {
	ip, o := p.Data, p.Offload
	headers, protocol, addresses := 20, ip[9], ip[12:20]
	if ip[0]>>4 == 6 {
		headers, protocol, addresses = 40, ip[6], ip[8:40]
	}
	field := map[byte]uint16{unix.IPPROTO_TCP: 16, unix.IPPROTO_UDP: 6}[protocol]
	if int(o.ChecksumStart) != headers || field == 0 || o.ChecksumOffset != field {
		return fmt.Errorf("checksum at %d+%d of protocol %d", o.ChecksumStart, o.ChecksumOffset, protocol)
	}
	length := len(ip) - headers
	want := onesSum(addresses, []byte{0, protocol, byte(length >> 8), byte(length)})
	if got := binary.BigEndian.Uint16(ip[o.ChecksumStart+o.ChecksumOffset:]); got != want {
		return fmt.Errorf("partial checksum %x, pseudo header sums to %x", got, want)
	}
	return nil
}

// received accepts one connection and returns all it brings.
func received(host netip.Addr) (l *net.TCPListener, got chan []byte, err error) {
	l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(host, 7001)))
	if err != nil {
		return nil, nil, err
	}
	got = make(chan []byte, 1)
	go func() {
		defer close(got)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if all, err := io.ReadAll(c); err == nil {
			got <- all
		}
	}()
	return l, got, nil
}

// transfer sends bytes through a TCP connection to the mirror, and checks that they arrive.
func transfer(host, peer netip.Addr, size int) error {
	sent := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	if _, err := r.Read(sent); err != nil {
		return err
	}
	l, got, err := received(host)
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := net.DialTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(host, 0)),
		net.TCPAddrFromAddrPort(netip.AddrPortFrom(peer, 7001)))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := c.Write(sent); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	if all := <-got; !bytes.Equal(all, sent) {
		return fmt.Errorf("%d bytes arrived, not the %d that were sent", len(all), size)
	}
	return nil
}

// TestTCPSuperPackets: a TCP connection of the host's own, whose super-packets go out and come in whole.
func TestTCPSuperPackets(t *testing.T) {
	for _, c := range []struct {
		host, peer netip.Addr
		kind       Segmentation
	}{{host4, peer4, SegmentTCP4}, {host6, peer6, SegmentTCP6}} {
		withConfig(t, Config{Name: "at0", MTU: 1380}, func(d Device) error {
			m := newMirror(t, d, nil)
			err := transfer(c.host, c.peer, 8<<20)
			if err := errors.Join(err, m.stop()); err != nil {
				return err
			}
			if m.longest[c.kind] < 20_000 || m.partial == 0 || m.longest[SegmentNone] > 1380 {
				t.Errorf("%v: longest %v bytes, %d partial checksums", c.peer, m.longest, m.partial)
			}
			return nil
		})
	}
}

// TestSuperPacketsWithCWR: a packet marked on its way (RFC 3168) makes the sender carry CWR in a super-packet.
func TestSuperPacketsWithCWR(t *testing.T) {
	withConfig(t, Config{Name: "at0", MTU: 1380}, func(d Device) error {
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_ecn", []byte("1"), 0o644); err != nil {
			return err
		}
		data := 0
		m := newMirror(t, d, func(p Packet) {
			if p.Offload.Segmentation == SegmentTCP6 {
				if data++; data%8 == 0 && p.Data[1]&0x20 != 0 {
					p.Data[1] |= 0x30 // IPv6 has no header checksum to mind
				}
			}
			if cwr := p.Data[min(len(p.Data)-1, 40+13)]&0x80 != 0; p.Offload.CWR && !cwr {
				t.Error("a super-packet of which the first segment carries CWR does not carry it")
			}
		})
		err := transfer(host6, peer6, 8<<20)
		if err := errors.Join(err, m.stop()); err != nil {
			return err
		}
		if m.cwr == 0 {
			t.Errorf("no super-packet with CWR among %v", m.seen)
		}
		return nil
	})
}

// TestUDPSuperPackets: datagrams that a socket sends in one go come out in one packet, and as datagrams on the way in.
func TestUDPSuperPackets(t *testing.T) {
	for _, c := range []struct{ host, peer netip.Addr }{{host4, peer4}, {host6, peer6}} {
		withConfig(t, Config{Name: "at0", MTU: 1380}, func(d Device) error {
			var first Packet
			m := newMirror(t, d, func(p Packet) {
				if first.Data == nil {
					first = Packet{bytes.Clone(p.Data), p.Offload}
				}
			})
			err := datagrams(c.host, c.peer)
			if err := errors.Join(err, m.stop()); err != nil {
				return err
			}
			if !d.Offloads().UDP {
				if m.seen[SegmentUDP] != 0 {
					t.Errorf("no UDP offload, and %v", m.seen)
				}
				return nil
			}
			headers := 28
			if c.peer.Is6() {
				headers = 48
			}
			want := Offload{
				Segmentation: SegmentUDP, SegmentBytes: 1000, PartialChecksum: true,
				ChecksumStart: uint16(headers - 8), ChecksumOffset: 6,
			}
			if m.seen[SegmentUDP] != 1 || first.Offload != want || len(first.Data) != headers+9_500 {
				t.Errorf("%v: %v, the first %d bytes, %+v", c.peer, m.seen, len(first.Data), first.Offload)
			}
			return nil
		})
	}
}

// datagrams sends nine and a half datagrams of 1000 bytes in one go and checks that they arrive.
func datagrams(host, peer netip.Addr) error {
	sink, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host, 7001)))
	if err != nil {
		return err
	}
	defer sink.Close()
	s, err := udpSocket(peer, 1000)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	sent := make([]byte, 9_500)
	for i := range sent {
		sent[i] = byte(i / 7)
	}
	if _, err := unix.Write(s, sent); err != nil {
		return err
	}
	if err := sink.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	b := make([]byte, 2000)
	for rest := sent; len(rest) > 0; {
		n, err := sink.Read(b)
		if err != nil {
			return err
		}
		want := rest[:min(1000, len(rest))]
		if !bytes.Equal(b[:n], want) {
			return fmt.Errorf("%d bytes before the end a datagram of %d bytes is not as it was sent", len(rest), n)
		}
		rest = rest[n:]
	}
	return nil
}

// TestLimits: the host observes the bounds of super-packets, and wrong ones are refused with nothing left behind.
func TestLimits(t *testing.T) {
	c := Config{Name: "at0", MTU: 1380, MaxSegments: 10, MaxSuperPacketBytes: 40_000}
	withConfig(t, c, func(d Device) error {
		o := d.Offloads()
		if o.MaxSegments != 10 || o.MaxSuperPacketBytes != 40_000 {
			t.Errorf("offloads %+v", o)
		}
		m := newMirror(t, d, nil)
		err := transfer(host4, peer4, 1<<20)
		if err := errors.Join(err, m.stop()); err != nil {
			return err
		}
		if n := m.longest[SegmentTCP4]; n <= 1380 || n > 52+10*1340 {
			t.Errorf("longest super-packet of %d bytes", n)
		}
		return nil
	})
	withConfig(t, Config{Name: "at0", MTU: 1380}, func(d Device) error {
		if o := d.Offloads(); o.MaxSegments < 64 || o.MaxSuperPacketBytes < 65535 {
			t.Errorf("the host's own: %+v", o)
		}
		return nil
	})
	inNetwork(t, func() error {
		before, err := descriptors()
		if err != nil {
			return err
		}
		_, err = Config{Name: "at0", MTU: 1380, MaxSuperPacketBytes: 1 << 20}.Create()
		if _, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, unix.EINVAL) {
			t.Errorf("super-packets of 1 MiB: %v", err)
		}
		if after, err := descriptors(); after != before || err != nil {
			t.Errorf("%d descriptors before, %d after, %v", before, after, err)
		}
		return nil
	})
}

package udp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// quicControl is what quic-go writes beside a packet.
func quicControl(from netip.Addr, ecn uint8, segmentBytes int) []byte {
	d := &Destination{to: netip.MustParseAddrPort("192.0.2.1:1"), from: from}
	control := appendSendControl(nil, d, ecn)
	if segmentBytes > 0 {
		control = appendSegment(control, segmentBytes)
	}
	return control
}

// longPacket is one of a handshake.
func longPacket(n, seed int) []byte {
	b := pattern(n, seed)
	b[0] = initialByte
	return b
}

// TestNarrowInterface: what QUIC needs at least goes through an interface that is too narrow for it, whole at the other
// end; probes do not, and neither does anything of a lane.
func TestNarrowInterface(t *testing.T) {
	for name, cfg := range modes {
		for _, mtu := range []int{1124, 576} {
			for _, bind := range []netip.Addr{{}, left4} {
				t.Run(name, func(t *testing.T) { checkNarrow(t, cfg, mtu, bind) })
			}
		}
	}
}

func checkNarrow(t *testing.T, cfg Config, mtu int, bind netip.Addr) {
	left, right := newLinkOf4(t, mtu)
	fromCfg := cfg
	fromCfg.Address = netip.AddrPortFrom(bind, 0)
	a, b := left.open(fromCfg), right.open(cfg)
	d := to(t, a, at(b, right4))
	arrive(t, a, d, b)
	remote := at(b, right4)
	if a.InFragments(remote) {
		t.Error("in fragments before anything was sent")
	}
	write := func(packet, control []byte) error {
		_, _, err := a.QUIC().WriteMsgUDP(packet, control, net.UDPAddrFromAddrPort(remote))
		return err
	}
	want := Message{From: at(a, left4), Local: right4, InterfaceIndex: uint32(right.veth.Attrs().Index)}
	check := func(data []byte, ecn uint8, fragmented bool) {
		t.Helper()
		ms := messages(1)
		if _, err := b.Receive(ms); err != nil {
			t.Fatal(err)
		}
		m := &ms[0]
		if !bytes.Equal(m.Data, data) || m.From != want.From || m.Local != want.Local || m.ECN != ecn ||
			m.InterfaceIndex != want.InterfaceIndex || m.Fragmented != fragmented {
			t.Errorf("%d bytes, want %d; from %v to %v, ECN %d, fragmented %t", len(m.Data), len(data), m.From, m.Local,
				m.ECN, m.Fragmented)
		}
	}
	for _, control := range [][]byte{nil, quicControl(left4, 2, 0)} {
		data := longPacket(minQUICBytes, 7)
		if err := write(data, control); err != nil {
			t.Fatal(err)
		}
		check(data, uint8(2*min(1, len(control))), true)
	}
	if !a.InFragments(remote) || !a.InFragments(netip.AddrPortFrom(netip.AddrFrom16(right4.As16()), remote.Port())) {
		t.Error("not in fragments")
	}
	if n := a.Stats().QUICFragmented; n != 2 {
		t.Errorf("%d counted", n)
	}
	// A row of packets, of which the last is short enough by itself.
	row := pattern(2*1100+500, 9)
	row[0] = shortByte
	if err := write(row, quicControl(netip.Addr{}, 1, 1100)); err != nil {
		t.Fatal(err)
	}
	check(row[:1100], 1, true)
	check(row[1100:2200], 1, true)
	check(row[2200:], 1, false)
	var errno syscall.Errno
	if err := write(longPacket(minQUICBytes+1, 1), nil); !errors.As(err, &errno) || errno != unix.EMSGSIZE {
		t.Errorf("a probe: %v", err)
	}
	var size SizeError
	if err := a.Send(make([]byte, 1200), 0, 0, d); !errors.As(err, &size) {
		t.Errorf("a lane packet: %v", err)
	}
	if err := a.PathError(remote); !errors.Is(err, ErrPathMTU) {
		t.Errorf("nobody has answered: %v", err)
	}
}

// newLinkOf4 is newLink for interfaces that are too narrow for IPv6.
func newLinkOf4(t *testing.T, mtu int) (left, right *host) {
	t.Helper()
	left, right = newLink(t, 1500)
	for _, h := range []*host{left, right} {
		h.do(func() error { return h.handle.LinkSetMTU(h.veth, mtu) })
	}
	return left, right
}

// TestFragmentsLeaveFromAddress: of a host with several addresses the answer leaves from the one that was asked.
func TestFragmentsLeaveFromAddress(t *testing.T) {
	left, right := newLinkOf4(t, 1124)
	a, b := left.open(Config{}), right.open(Config{})
	arrive(t, a, to(t, a, at(b, right4)), b)
	for _, from := range []netip.Addr{other4, right4} {
		_, _, err := b.QUIC().WriteMsgUDP(longPacket(1200, 3), quicControl(from, 0, 0),
			net.UDPAddrFromAddrPort(at(a, left4)))
		if err != nil {
			t.Fatal(err)
		}
		ms := messages(1)
		if _, err := a.Receive(ms); err != nil {
			t.Fatal(err)
		}
		if ms[0].From != at(b, from) {
			t.Errorf("from %v, want %v", ms[0].From, from)
		}
	}
}

// TestNarrowHandshakeIsAnsweredInFragments: the side that hears fragments answers with them at once, though its own interface
// is wide.
func TestNarrowHandshakeIsAnsweredInFragments(t *testing.T) {
	left, right := newLinkOf4(t, 1124)
	a, b := left.open(Config{}), right.open(Config{})
	arrive(t, a, to(t, a, at(b, right4)), b)
	write := func(from, into *Conn, remote netip.AddrPort) *Message {
		t.Helper()
		if _, _, err := from.QUIC().WriteMsgUDP(longPacket(1200, 1), nil, net.UDPAddrFromAddrPort(remote)); err != nil {
			t.Fatal(err)
		}
		ms := messages(1)
		if _, err := into.Receive(ms); err != nil {
			t.Fatal(err)
		}
		into.Deliver(&ms[0])
		return &ms[0]
	}
	write(a, b, at(b, right4))
	right.do(func() error { return right.handle.LinkSetMTU(right.veth, 1500) })
	left.do(func() error { return left.handle.LinkSetMTU(left.veth, 1500) })
	if !write(b, a, at(a, left4)).Fragmented || !b.InFragments(at(a, left4)) {
		t.Error("the answer is whole")
	}
	b.Carries(at(a, left4), 1472)
	if write(b, a, at(a, left4)).Fragmented || b.InFragments(at(a, left4)) {
		t.Error("fragments although a lane carries more")
	}
}

// TestTwinHasMark: what goes in fragments is routed as everything else.
func TestTwinHasMark(t *testing.T) {
	const mark = 0xae7e0001
	h := newHost(t)
	c := h.open(Config{Mark: mark})
	raw, ok := c.quic.twin.(*rawTwin)
	if !ok {
		t.Fatalf("no twin: %+v", c.Offloads().Fragments)
	}
	for _, fd := range []int{raw.raw, raw.probe} {
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK)
		if err != nil || uint32(got) != mark {
			t.Errorf("mark %#x, %v", uint32(got), err)
		}
	}
}

// TestTwinReadsNothing: a raw socket that received would cost every datagram a copy.
func TestTwinReadsNothing(t *testing.T) {
	left, right := newLink(t, 1500)
	a, b := left.open(Config{}), right.open(Config{})
	d := to(t, a, at(b, right4))
	arrive(t, a, d, b)
	raw := b.quic.twin.(*rawTwin)
	for _, fd := range []int{raw.raw, raw.probe} {
		if n, _, err := unix.Recvfrom(fd, make([]byte, 100), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}

// TestWithoutRawSocket: a process that may not have one sends whole packets, and says so.
func TestWithoutRawSocket(t *testing.T) {
	left, right := newLinkOf4(t, 1124)
	left.do(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		data[0].Effective &^= 1 << unix.CAP_NET_RAW
		return unix.Capset(&header, &data[0])
	})
	a, b := left.open(Config{}), right.open(Config{})
	if o := a.Offloads().Fragments; o.On || !strings.Contains(o.Reason, "CAP_NET_RAW") {
		t.Errorf("%+v", o)
	}
	if o := b.Offloads().Fragments; !o.On || o.Reason != "" {
		t.Errorf("%+v", o)
	}
	arrive(t, a, to(t, a, at(b, right4)), b)
	remote := at(b, right4)
	var errno syscall.Errno
	_, _, err := a.QUIC().WriteMsgUDP(longPacket(1200, 1), nil, net.UDPAddrFromAddrPort(remote))
	if !errors.As(err, &errno) || errno != unix.EMSGSIZE || a.InFragments(remote) {
		t.Errorf("%v, in fragments: %t", err, a.InFragments(remote))
	}
	err = a.PathError(remote)
	if !errors.Is(err, ErrPathMTU) || !strings.Contains(err.Error(), "path MTU below 1228") ||
		!strings.Contains(err.Error(), "CAP_NET_RAW") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

// TestClosedTwin: writes after Close fail as others do.
func TestClosedTwin(t *testing.T) {
	c := openLocal(t, Config{})
	remote := netip.MustParseAddrPort("127.0.0.1:9")
	c.Carries(remote, 548)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err := c.QUIC().WriteMsgUDP(longPacket(1200, 1), nil, net.UDPAddrFromAddrPort(remote))
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// TestUnansweredPath: what is known of a path is what an error may say of it.
func TestUnansweredPath(t *testing.T) {
	left, right := newLink(t, 1500)
	a, b := left.open(Config{}), right.open(Config{})
	arrive(t, a, to(t, a, at(b, right4)), b)
	remote := at(b, right4)
	silent := func() {
		for i := range int64(3) {
			a.quic.narrow.writing(remote, initialByte, 1200, a.quic.nanos()+i*500*millis)
		}
	}
	silent()
	if err := a.PathError(remote); err != nil {
		t.Errorf("a host that is not there: %v", err)
	}
	reset := make([]byte, 42)
	reset[0] = shortByte
	a.Deliver(&Message{Data: reset, SegmentBytes: len(reset), From: remote})
	if err := a.PathError(remote); !errors.Is(err, ErrPathMTU) {
		t.Errorf("a host that answers what is short: %v", err)
	}
	other := at(b, other4)
	for i := range int64(3) {
		a.quic.narrow.writing(other, initialByte, 1200, a.quic.nanos()+i*500*millis)
	}
	if err := a.PathError(other); err != nil {
		t.Errorf("%v", err)
	}
	left.do(func() error { return left.handle.LinkSetMTU(left.veth, 1200) })
	if err := a.PathError(other); !errors.Is(err, ErrPathMTU) {
		t.Errorf("the kernel knows of a narrow link: %v", err)
	}
}

// TestSoundingIsSent: as a QUIC packet of a connection that nobody knows.
func TestSoundingIsSent(t *testing.T) {
	left, right := newLink(t, 1500)
	a, b := left.open(Config{}), right.open(Config{})
	arrive(t, a, to(t, a, at(b, right4)), b)
	a.quic.sound(at(b, right4), quicControl(netip.Addr{}, 0, 1200))
	ms := messages(1)
	if _, err := b.Receive(ms); err != nil {
		t.Fatal(err)
	}
	m := ms[0].Data
	if len(m) != soundingBytes || m[0]&0xc0 != 0x40 || binary.BigEndian.Uint64(m[1:]) == 0 {
		t.Errorf("%x", m)
	}
}

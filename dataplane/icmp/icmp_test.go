package icmp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

var (
	router4 = netip.MustParseAddr("100.64.0.1")
	router6 = netip.MustParseAddr("fd00::1")
	host4   = netip.MustParseAddr("100.64.0.7")
	host6   = netip.MustParseAddr("fd00::7")
	far4    = netip.MustParseAddr("192.0.2.9")
	far6    = netip.MustParseAddr("2001:db8::9")
)

// packet4 makes an IPv4 packet with a payload of the given protocol.
func packet4(src, dst netip.Addr, protocol byte, payload []byte) []byte {
	p := make([]byte, header4Bytes+len(payload))
	p[0] = 0x45
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[8], p[9] = 64, protocol
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.AsSlice())
	copy(p[20:], payload)
	return p
}

// packet6 makes an IPv6 packet; payload may begin with extension headers.
func packet6(src, dst netip.Addr, next byte, payload []byte) []byte {
	p := make([]byte, header6Bytes+len(payload))
	p[0] = 0x60
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	p[6], p[7] = next, 64
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	copy(p[40:], payload)
	return p
}

func udp(payloadBytes int) []byte { return bytes.Repeat([]byte{0xab}, 8+payloadBytes) }

// checkIPv4 compares an IPv4 error with what golang.org/x/net/icmp would build.
func checkIPv4(t *testing.T, got []byte, kind ipv4.ICMPType, code, own int, quote []byte) {
	t.Helper()
	h, err := ipv4.ParseHeader(got)
	if err != nil {
		t.Fatalf("parse header: %v", err)
	}
	if !h.Src.Equal(net.IP(router4.AsSlice())) || !h.Dst.Equal(net.IP(host4.AsSlice())) {
		t.Errorf("from %v to %v", h.Src, h.Dst)
	}
	if h.TotalLen != len(got) || h.Protocol != protocolICMP4 || h.Flags != ipv4.DontFragment {
		t.Errorf("header %v for %d bytes", h, len(got))
	}
	if fold(sum(0, got[:h.Len])) != 0xffff {
		t.Error("header checksum wrong")
	}
	body := binary.BigEndian.AppendUint32(nil, uint32(own))
	m := icmp.Message{Type: kind, Code: code, Body: &icmp.RawBody{Data: append(body, quote...)}}
	want, err := m.Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[h.Len:], want) {
		t.Errorf("message\n%x, want\n%x", got[h.Len:], want)
	}
}

// checkIPv6 is checkIPv4 for IPv6.
func checkIPv6(t *testing.T, got []byte, kind ipv6.ICMPType, code, own int, quote []byte) {
	t.Helper()
	h, err := ipv6.ParseHeader(got)
	if err != nil {
		t.Fatalf("parse header: %v", err)
	}
	if !h.Src.Equal(net.IP(router6.AsSlice())) || !h.Dst.Equal(net.IP(host6.AsSlice())) {
		t.Errorf("from %v to %v", h.Src, h.Dst)
	}
	if h.PayloadLen+header6Bytes != len(got) || h.NextHeader != protocolICMP6 {
		t.Errorf("header %v for %d bytes", h, len(got))
	}
	body := binary.BigEndian.AppendUint32(nil, uint32(own))
	m := icmp.Message{Type: kind, Code: code, Body: &icmp.RawBody{Data: append(body, quote...)}}
	want, err := m.Marshal(icmp.IPv6PseudoHeader(h.Src, h.Dst))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[header6Bytes:], want) {
		t.Errorf("message\n%x, want\n%x", got[header6Bytes:], want)
	}
}

func TestRFC9484Section10_1PacketTooBig(t *testing.T) {
	for _, size := range []int{1273, 1400, 9000} {
		p4 := packet4(host4, far4, 17, udp(size))
		checkIPv4(t, TooBig(p4, 1241, router4), ipv4.ICMPTypeDestinationUnreachable, 4, 1241, p4[:548])
		p6 := packet6(host6, far6, 17, udp(size))
		checkIPv6(t, TooBig(p6, 1281, router6), ipv6.ICMPTypePacketTooBig, 0, 1281, p6[:min(len(p6), 1232)])
	}
}

func TestRFC9484Section7_2_1SourceNotAllowed(t *testing.T) {
	p6 := packet6(host6, far6, 6, udp(33))
	checkIPv6(t, Unreachable(p6, SourceNotAllowed, router6), ipv6.ICMPTypeDestinationUnreachable, 5, 0, p6)
	p4 := packet4(host4, far4, 6, udp(33))
	checkIPv4(t, Unreachable(p4, SourceNotAllowed, router4), ipv4.ICMPTypeDestinationUnreachable, 13, 0, p4)
}

func TestRFC9484Section7_2_1Unroutable(t *testing.T) {
	p4, p6 := packet4(host4, far4, 6, udp(0)), packet6(host6, far6, 6, udp(1))
	for _, c := range []struct {
		reason       Reason
		code4, code6 int
	}{{NoRoute, 0, 0}, {Prohibited, 13, 1}, {HostUnreachable, 1, 3}, {PortUnreachable, 3, 4}} {
		checkIPv4(t, Unreachable(p4, c.reason, router4), ipv4.ICMPTypeDestinationUnreachable, c.code4, 0, p4)
		checkIPv6(t, Unreachable(p6, c.reason, router6), ipv6.ICMPTypeDestinationUnreachable, c.code6, 0, p6)
	}
}

func TestTimeExceeded(t *testing.T) {
	p4, p6 := packet4(host4, far4, 6, udp(5)), packet6(host6, far6, 6, udp(6))
	checkIPv4(t, TimeExceeded(p4, router4), ipv4.ICMPTypeTimeExceeded, 0, 0, p4)
	checkIPv6(t, TimeExceeded(p6, router6), ipv6.ICMPTypeTimeExceeded, 0, 0, p6)
}

func TestReportedMTUIsUsable(t *testing.T) {
	p4, p6 := packet4(host4, far4, 17, udp(1400)), packet6(host6, far6, 17, udp(1400))
	checkIPv4(t, TooBig(p4, 3, router4), ipv4.ICMPTypeDestinationUnreachable, 4, MinIPv4MTU, p4[:548])
	checkIPv6(t, TooBig(p6, 900, router6), ipv6.ICMPTypePacketTooBig, 0, MinIPv6MTU, p6[:1232])
	if p := TooBig(packet6(host6, far6, 17, udp(1280-48)), 900, router6); p != nil {
		t.Errorf("report about an IPv6 packet of 1280 bytes: %x", p)
	}
	if p := TooBig(p4, len(p4), router4); p != nil {
		t.Errorf("report about an IPv4 packet that fits: %x", p)
	}
}

func TestNoErrorAbout(t *testing.T) {
	multicast4, multicast6 := netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("ff02::1")
	fragment4 := packet4(host4, far4, 17, udp(1300))
	fragment4[7] = 1
	fragment6 := func(offset byte) []byte {
		return packet6(host6, far6, fragment, append([]byte{17, 0, 0, offset, 0, 0, 0, 1}, udp(1300)...))
	}
	short := packet4(host4, far4, 17, udp(1300))
	short[0] = 0x44
	behindOptions := func(kind byte) []byte { // destination options with padding
		payload := append([]byte{protocolICMP6, 0, 1, 4, 0, 0, 0, 0, kind}, udp(1300)...)
		return packet6(host6, far6, destination, payload)
	}
	for name, c := range map[string]struct {
		packet []byte
		src    netip.Addr
		answer bool
	}{
		"udp 4":                   {packet4(host4, far4, 17, udp(1300)), router4, true},
		"udp 6":                   {packet6(host6, far6, 17, udp(1300)), router6, true},
		"echo request 4":          {packet4(host4, far4, 1, append([]byte{8}, udp(1300)...)), router4, true},
		"echo request 6":          {packet6(host6, far6, 58, append([]byte{128}, udp(1300)...)), router6, true},
		"unreachable 4":           {packet4(host4, far4, 1, append([]byte{3}, udp(1300)...)), router4, false},
		"redirect 4":              {packet4(host4, far4, 1, append([]byte{5}, udp(1300)...)), router4, false},
		"unknown icmp 4":          {packet4(host4, far4, 1, append([]byte{99}, udp(1300)...)), router4, false},
		"icmp without type 4":     {packet4(host4, far4, 1, nil), router4, false},
		"too big 6":               {packet6(host6, far6, 58, append([]byte{2}, udp(1300)...)), router6, false},
		"redirect 6":              {packet6(host6, far6, 58, append([]byte{137}, udp(1300)...)), router6, false},
		"icmp without type 6":     {packet6(host6, far6, 58, nil), router6, false},
		"unreachable behind opts": {behindOptions(1), router6, false},
		"echo behind opts":        {behindOptions(129), router6, true},
		"later fragment 4":        {fragment4, router4, false},
		"first fragment 6":        {fragment6(1), router6, true}, // more fragments, offset 0
		"later fragment 6":        {fragment6(8), router6, false},
		"to multicast 4":          {packet4(host4, multicast4, 17, udp(1300)), router4, false},
		"to multicast 6":          {packet6(host6, multicast6, 17, udp(1300)), router6, false},
		"to broadcast":            {packet4(host4, broadcast4(), 17, udp(1300)), router4, false},
		"from unspecified 4":      {packet4(netip.IPv4Unspecified(), far4, 17, udp(1300)), router4, false},
		"from unspecified 6":      {packet6(netip.IPv6Unspecified(), far6, 17, udp(1300)), router6, false},
		"from multicast 4":        {packet4(multicast4, far4, 17, udp(1300)), router4, false},
		"from broadcast":          {packet4(broadcast4(), far4, 17, udp(1300)), router4, false},
		"from loopback":           {packet4(netip.MustParseAddr("127.0.0.1"), far4, 17, udp(1300)), router4, false},
		"source of other family":  {packet4(host4, far4, 17, udp(1300)), router6, false},
		"no source":               {packet6(host6, far6, 17, udp(1300)), netip.Addr{}, false},
		"short header length":     {short, router4, false},
		"nothing":                 {nil, router4, false},
		"truncated 6":             {packet6(host6, far6, 17, nil)[:39], router6, false},
		"endless options":         {packet6(host6, far6, 60, []byte{60, 255}), router6, false},
	} {
		for kind, p := range map[string][]byte{
			"unreachable":   Unreachable(c.packet, NoRoute, c.src),
			"time exceeded": TimeExceeded(c.packet, c.src),
			"too big":       TooBig(c.packet, 1280, c.src),
		} {
			if (p != nil) != c.answer {
				t.Errorf("%s: %s: answered %t, want %t", name, kind, p != nil, c.answer)
			}
		}
	}
}

// FuzzErrors checks that no input panics, that errors stay within their bounds with
// valid checksums, and that no error is ever answered with another.
func FuzzErrors(f *testing.F) {
	f.Add(packet4(host4, far4, 17, udp(10)), 1241)
	f.Add(packet6(host6, far6, 17, udp(1300)), 1280)
	f.Add(packet6(host6, far6, 44, append([]byte{17, 0, 0, 1, 0, 0, 0, 1}, udp(4)...)), 0)
	f.Add(packet6(host6, far6, 0, []byte{60, 0, 1, 4, 0, 0, 0, 0, 6, 1, 0}), -1)
	f.Fuzz(func(t *testing.T, orig []byte, mtu int) {
		before := bytes.Clone(orig)
		for _, src := range []netip.Addr{router4, router6} {
			for _, p := range [][]byte{
				TooBig(orig, mtu, src), Unreachable(orig, Reason(mtu), src), TimeExceeded(orig, src),
			} {
				if p == nil {
					continue
				}
				if src.Is4() {
					if len(p) > MaxIPv4Bytes || fold(sum(0, p[:20])) != 0xffff || fold(sum(0, p[20:])) != 0xffff {
						t.Fatalf("bad IPv4 error %x", p)
					}
				} else {
					pseudo := sum(uint64(len(p)-40)+protocolICMP6, p[8:40])
					if len(p) > MaxIPv6Bytes || fold(sum(pseudo, p[40:])) != 0xffff {
						t.Fatalf("bad IPv6 error %x", p)
					}
				}
				if Unreachable(p, NoRoute, src) != nil || TooBig(p, 0, src) != nil || TimeExceeded(p, src) != nil {
					t.Fatalf("error about an error: %x", p)
				}
			}
		}
		if !bytes.Equal(orig, before) {
			t.Fatal("the packet was changed")
		}
	})
}

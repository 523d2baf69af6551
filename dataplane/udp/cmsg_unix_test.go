//go:build linux || darwin

package udp

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestControl: what the shim tells quic-go is what the kernel told us.
func TestControl(t *testing.T) {
	for _, local := range []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7"), {}} {
		for ecn := range uint8(4) {
			ipv4 := !local.Is6()
			b := appendReceiveControl(nil, ipv4, local, 77, ecn)
			if len(b) > quicControlBytes {
				t.Errorf("%v: %d bytes", local, len(b))
			}
			m := Message{Data: make([]byte, 100)}
			m.parseControl(b)
			index := uint32(77)
			if !local.IsValid() {
				index = 0
			}
			if m.ECN != ecn || m.Local != local || m.InterfaceIndex != index || m.SegmentBytes != 100 {
				t.Errorf("%v, %d: %+v", local, ecn, m)
			}
		}
	}
}

// FuzzControl: whatever stands there, the segments of a message are no longer than the message.
func FuzzControl(f *testing.F) {
	f.Add([]byte{}, 100)
	f.Add(appendReceiveControl(nil, true, netip.MustParseAddr("192.0.2.7"), 3, 2), 100)
	f.Add(appendReceiveControl(nil, false, netip.MustParseAddr("2001:db8::7"), 3, 1), 0)
	for _, n := range []int{0, 1, 2, 3, 4, 12, 20} {
		for _, k := range [][2]int32{
			{unix.IPPROTO_IP, receivedTOS},
			{unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
			{unix.IPPROTO_IP, unix.IP_PKTINFO},
			{unix.IPPROTO_IPV6, unix.IPV6_PKTINFO},
			{unix.IPPROTO_UDP, 104},
		} {
			b, data := controlMessage(nil, k[0], k[1], n)
			for i := range data {
				data[i] = 0xff
			}
			f.Add(b, 1400)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, length int) {
		if length < 0 || length > MaxReceiveBytes {
			return
		}
		m := Message{Data: make([]byte, length)}
		m.parseControl(b)
		if m.SegmentBytes < 0 || m.SegmentBytes > length || m.SegmentBytes == 0 && length > 0 || m.ECN > 3 {
			t.Errorf("%d bytes: %+v", length, m.SegmentBytes)
		}
		if n := m.Datagrams(); n < 1 || n > max(1, length) {
			t.Errorf("%d datagrams in %d bytes", n, length)
		}
	})
}

//go:build !linux && !darwin

package udp

import "net/netip"

// parseControl knows nothing but the datagram: this system tells nothing that is asked for here.
func (m *Message) parseControl([]byte) {
	m.Local, m.InterfaceIndex, m.ECN, m.SegmentBytes = netip.Addr{}, 0, 0, len(m.Data)
	m.Fragmented = false
}

func appendSendControl(b []byte, _ *Destination, _ uint8) []byte { return b }

func appendReceiveControl(b []byte, _ bool, _ netip.Addr, _ uint32, _ uint8) []byte { return b }

package tun

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slots makes packets with buffers as ReadPackets wants them.
func slots(n int) []Packet {
	packets := make([]Packet, n)
	for i := range packets {
		packets[i].Data = make([]byte, Headroom+MaxPacketBytes)
	}
	return packets
}

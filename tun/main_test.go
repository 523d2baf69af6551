package tun

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// room makes buffers as Device.Read wants them.
func room(packets int) (bufs [][]byte, sizes []int) {
	for range packets {
		bufs = append(bufs, make([]byte, Headroom+MaxPacketBytes))
	}
	return bufs, make([]int, packets)
}

// framed makes a buffer as Device.Write wants it.
func framed(packet []byte) []byte { return append(make([]byte, Headroom), packet...) }

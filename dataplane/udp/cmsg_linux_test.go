package udp

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSegmentSize: as an int, and as the 16 bits of old kernels; a size that makes no sense is none.
func TestSegmentSize(t *testing.T) {
	for _, c := range []struct{ bytes, size, length, want int }{
		{4, 1200, 5000, 1200},
		{2, 1200, 5000, 1200},
		{4, 5000, 5000, 5000},
		{4, 6000, 5000, 5000},
		{4, 0, 5000, 5000},
		{4, -1, 5000, 5000},
		{2, 0, 5000, 5000},
		{1, 9, 5000, 5000},
	} {
		b, data := controlMessage(nil, unix.IPPROTO_UDP, unix.UDP_GRO, c.bytes)
		switch c.bytes {
		case 4:
			binary.NativeEndian.PutUint32(data, uint32(int32(c.size)))
		case 2:
			binary.NativeEndian.PutUint16(data, uint16(c.size))
		}
		m := Message{Data: make([]byte, c.length)}
		if m.parseControl(b); m.SegmentBytes != c.want {
			t.Errorf("%+v: %d", c, m.SegmentBytes)
		}
	}
}

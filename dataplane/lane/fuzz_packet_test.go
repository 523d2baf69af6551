package lane

import (
	"bytes"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
)

// FuzzOpen feeds an opener what is not from the sealer, and then what is.
func FuzzOpen(f *testing.F) {
	s, _ := newPair(f, aead.AES256GCM, nil)
	packet := seal(f, s, []byte{FramePing})
	f.Add(packet, uint8(0))
	f.Add(packet[:MinPacketBytes-1], uint8(1))
	f.Add(bytes.Repeat([]byte{0x40}, 1200), uint8(2))
	f.Add(bytes.Repeat([]byte{0xc0}, 40), uint8(0))
	f.Fuzz(func(t *testing.T, datagram []byte, n uint8) {
		s, o := newPair(t, allSuitesTested[int(n)%len(allSuitesTested)], nil)
		honest := seal(t, s, []byte{FramePing})
		if bytes.Equal(datagram, honest) {
			return
		}
		if frames, _, v := open(o, datagram, 1); v == VerdictOK || frames != nil {
			t.Fatalf("a forgery was opened: %v, %x", v, frames)
		}
		if o.window != (window{}) {
			t.Fatal("a forgery moved the window")
		}
		mustOpen(t, o, honest, 1, 0, []byte{FramePing})
	})
}

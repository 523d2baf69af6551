package udp

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestFragments: put together they are the datagram, whose checksum is right, and all but the last are as long as may be.
func TestFragments(t *testing.T) {
	flow := fragmentFlow{
		from: netip.MustParseAddrPort("192.0.2.7:443"), to: netip.MustParseAddrPort("198.51.100.9:5555"), id: 0xabcd, tos: 2,
	}
	random := rand.NewChaCha8([32]byte{1})
	for _, n := range []int{0, 1, 544, 545, 548, 549, 1095, 1096, 1097, 1199, 1200} {
		payload := make([]byte, n)
		_, _ = random.Read(payload)
		datagram := flow.appendUDP(nil, payload)
		var joined []byte
		for offset, more := 0, true; more; {
			fragment, next := flow.appendFragment(nil, datagram, offset)
			flags := binary.BigEndian.Uint16(fragment[6:])
			more = flags&ipv4MoreFragments != 0
			switch {
			case len(fragment) > fragmentBytes, more && len(fragment) < fragmentBytes-fragmentUnit:
				t.Fatalf("%d: a fragment of %d bytes", n, len(fragment))
			case flags&^ipv4MoreFragments != uint16(len(joined)/8), len(joined)%8 != 0, more != (next != 0), flags&0x4000 != 0:
				t.Fatalf("%d: flags %#x, %d bytes before, next %d", n, flags, len(joined), next)
			case fragment[0] != 0x45, fragment[1] != 2, fragment[9] != 17, binary.BigEndian.Uint16(fragment[4:]) != 0xabcd,
				!bytes.Equal(fragment[12:20], []byte{192, 0, 2, 7, 198, 51, 100, 9}):
				t.Fatalf("%d: header %x", n, fragment[:20])
			}
			joined = append(joined, fragment[20:]...)
			offset = next
		}
		if !bytes.Equal(joined[8:], payload) || binary.BigEndian.Uint16(joined) != 443 ||
			binary.BigEndian.Uint16(joined[2:]) != 5555 || int(binary.BigEndian.Uint16(joined[4:])) != len(joined) {
			t.Errorf("%d: joined %x", n, joined)
		}
		pseudo := append([]byte{192, 0, 2, 7, 198, 51, 100, 9, 0, 17}, joined[4:6]...)
		if sum := onesSum(append(pseudo, joined...)); sum != 0xffff {
			t.Errorf("%d: checksum adds up to %#x", n, sum)
		}
	}
}

// onesSum is the sum of RFC 1071, word by word.
func onesSum(b []byte) uint32 {
	sum := uint32(0)
	for len(b) > 0 {
		word := [2]byte{}
		b = b[copy(word[:], b):]
		sum += uint32(binary.BigEndian.Uint16(word[:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}

package lane

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"testing"

	"golang.org/x/crypto/chacha20"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
)

// packetVector is one of testdata/packets.json, which a program wrote that shares no code or language with this one.
// Keys are those of crypto/keyschedule/testdata/vectors.json.
type packetVector struct {
	Suite                           aead.Suite
	Epoch                           uint32
	Key, IV, HP, ID, Frames, Packet hexBytes
	Number, What                    string
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode(nil, text)
	return err
}

func readPackets(t *testing.T) []packetVector {
	t.Helper()
	text, err := os.ReadFile("testdata/packets.json")
	if err != nil {
		t.Fatal(err)
	}
	var v []packetVector
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if len(v) != 15 {
		t.Fatalf("%d vectors", len(v))
	}
	return v
}

// refSeal is a second implementation of a lane packet, from the text and with nothing of this package.
func refSeal(t *testing.T, v *packetVector, number uint64) []byte {
	t.Helper()
	a, err := v.Suite.New(v.Key)
	if err != nil {
		t.Fatal(err)
	}
	header := []byte{0x40 + byte(v.Epoch%2)*4 + 3}
	header = append(header, v.ID...)
	header = append(header, byte(number>>24), byte(number>>16), byte(number>>8), byte(number))
	nonce := bytes.Clone(v.IV)
	for i := range 8 {
		nonce[11-i] ^= byte(number >> (8 * i))
	}
	sealed := a.Seal(nil, nonce, v.Frames, header)
	mask := make([]byte, 16)
	if v.Suite == aead.ChaCha20Poly1305 {
		c, err := chacha20.NewUnauthenticatedCipher(v.HP, sealed[4:16])
		if err != nil {
			t.Fatal(err)
		}
		c.SetCounter(binary.LittleEndian.Uint32(sealed))
		c.XORKeyStream(mask, mask)
	} else {
		block, err := aes.NewCipher(v.HP)
		if err != nil {
			t.Fatal(err)
		}
		block.Encrypt(mask, sealed[:16])
	}
	header[0] ^= mask[0] & 0x1f
	for i := range 4 {
		header[9+i] ^= mask[1+i]
	}
	return append(header, sealed...)
}

func TestPacketVectors(t *testing.T) {
	for i, v := range readPackets(t) {
		number, err := strconv.ParseUint(v.Number, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		key, err := v.Suite.NewPacketKey(v.Key, v.IV)
		if err != nil {
			t.Fatal(err)
		}
		header, err := v.Suite.NewHeaderKey(v.HP)
		if err != nil {
			t.Fatal(err)
		}
		keys := Keys{v.Epoch, key}
		s, err := NewSealer(SealerConfig{
			Keys: keys, Header: header, ID: ConnectionID(v.ID), MaxPacketBytes: 1500,
			FirstNumber: number, KeyFirstNumber: number,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := seal(t, s, v.Frames); !bytes.Equal(got, v.Packet) {
			t.Errorf("vector %d (%s): sealed %x, want %x", i, v.What, got, []byte(v.Packet))
		}
		if got := refSeal(t, &v, number); !bytes.Equal(got, v.Packet) {
			t.Errorf("vector %d (%s): the second implementation made %x", i, v.What, got)
		}
		o, err := NewOpener(OpenerConfig{Keys: keys, Header: header})
		if err != nil {
			t.Fatal(err)
		}
		o.window.next = number // the numbers of the vectors are too far apart for an opener that starts at 0
		mustOpen(t, o, v.Packet, 1, number, v.Frames)
		var f Frames
		if !ParseFrames(v.Frames, &f) {
			t.Errorf("vector %d (%s): frames refused", i, v.What)
		}
	}
}

package aead

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

var suites = []Suite{AES256GCM, AES128GCM, ChaCha20Poly1305}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMasks are the header protection samples of RFC 9001 appendices A.2, A.3 and A.5, and for AES-256 the block of
// FIPS 197 appendix C.3.
func TestMasks(t *testing.T) {
	for _, tt := range []struct {
		suite             Suite
		key, sample, mask string
	}{
		{AES128GCM, "9f50449e04a0e810283a1e9933adedd2", "d1b1c98dd7689fb8ec11d242b123dc9b", "437b9aec36"},
		{AES128GCM, "c206b8d9b9f0f37644430b490eeaa314", "2cd0991cd25b0aac406a5816b6394100", "2ec0d8356a"},
		{
			ChaCha20Poly1305, "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4",
			"5e5cd55c41f69080575d7999c25a5bfb", "aefefe7d03",
		},
		{
			AES256GCM, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
			"00112233445566778899aabbccddeeff", "8ea2b7ca516745bfeafc49904b496089",
		},
	} {
		h, err := tt.suite.NewHeaderKey(unhex(t, tt.key))
		if err != nil {
			t.Fatal(err)
		}
		mask := [MaskBytes]byte{0xff, 0xff, 0xff, 0xff, 0xff}
		h.Mask(&mask, (*[SampleBytes]byte)(unhex(t, tt.sample)))
		if got := hex.EncodeToString(mask[:len(tt.mask)/2]); got != tt.mask {
			t.Errorf("%v: mask %s, want %s", tt.suite, got, tt.mask)
		}
		if h.Suite() != tt.suite {
			t.Errorf("suite %v, want %v", h.Suite(), tt.suite)
		}
	}
}

// TestPackets seals what RFC 9001 appendix A.5 seals with ChaCha20-Poly1305, and test case 16 of the GCM submission
// with AES-256.
func TestPackets(t *testing.T) {
	k, err := ChaCha20Poly1305.NewPacketKey(
		unhex(t, "c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8"), unhex(t, "e0459b3474bdd0e44a41c144"))
	if err != nil {
		t.Fatal(err)
	}
	nonce := k.IV()
	for i, b := range []byte{0x27, 0x00, 0xbf, 0xf4} { // packet number 654360564
		nonce[NonceBytes-4+i] ^= b
	}
	got := k.AEAD().Seal(nil, nonce[:], []byte{1}, unhex(t, "4200bff4"))
	if want := unhex(t, "655e5cd55c41f69080575d7999c25a5bfb"); !bytes.Equal(got, want) {
		t.Errorf("ChaCha20-Poly1305: %x, want %x", got, want)
	}

	a, err := AES256GCM.New(unhex(t, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"))
	if err != nil {
		t.Fatal(err)
	}
	got = a.Seal(nil, unhex(t, "cafebabefacedbaddecaf888"),
		unhex(t, "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"),
		unhex(t, "feedfacedeadbeeffeedfacedeadbeefabaddad2"))
	want := "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662" +
		"76fc6ece0f4e1768cddf8853bb2d551b"
	if hex.EncodeToString(got) != want {
		t.Errorf("AES-256-GCM: %x, want %s", got, want)
	}
}

func TestSuites(t *testing.T) {
	for _, s := range suites {
		if !s.Valid() {
			t.Errorf("%v is not valid", s)
		}
		a, err := s.New(make([]byte, s.KeyBytes()))
		if err != nil || a.NonceSize() != NonceBytes || a.Overhead() != TagBytes {
			t.Errorf("%v: %v", s, err)
		}
		for n := range MaxKeyBytes + 9 {
			_, err := s.NewPacketKey(make([]byte, n), make([]byte, NonceBytes))
			_, errHeader := s.NewHeaderKey(make([]byte, n))
			if good := n == s.KeyBytes(); good != (err == nil) || good != (errHeader == nil) ||
				!good && (!errors.Is(err, ErrKeySize) || !errors.Is(errHeader, ErrKeySize)) {
				t.Errorf("%v with a key of %d bytes: %v, %v", s, n, err, errHeader)
			}
		}
		if _, err := s.NewPacketKey(make([]byte, s.KeyBytes()), make([]byte, 8)); !errors.Is(err, ErrKeySize) {
			t.Errorf("%v with a short IV: %v", s, err)
		}
	}
	for _, s := range []Suite{0, 4, 255} {
		_, err := s.New(make([]byte, 32))
		if s.Valid() || s.KeyBytes() != 0 || !errors.Is(err, ErrSuite) {
			t.Errorf("suite %d: %v", uint8(s), err)
		}
	}
}

func TestPreferred(t *testing.T) {
	for _, tt := range []struct {
		allowed []Suite
		hasAES  bool
		want    []Suite
	}{
		{nil, true, []Suite{AES256GCM, AES128GCM, ChaCha20Poly1305}},
		{nil, false, []Suite{ChaCha20Poly1305, AES256GCM, AES128GCM}},
		{[]Suite{ChaCha20Poly1305, AES128GCM}, true, []Suite{AES128GCM, ChaCha20Poly1305}},
		{[]Suite{AES128GCM}, false, []Suite{AES128GCM}},
		{[]Suite{9}, true, []Suite{}},
	} {
		if got := preferred(Policy{tt.allowed}, tt.hasAES); !slices.Equal(got, tt.want) {
			t.Errorf("%v, AES %v: %v", tt.allowed, tt.hasAES, got)
		}
	}
	if got := Preferred(Policy{}); got[0] == ChaCha20Poly1305 == HasAES() {
		t.Errorf("this machine, AES %v, prefers %v", HasAES(), got)
	}
}

func TestChoose(t *testing.T) {
	withAES, without := preferred(Policy{}, true), preferred(Policy{}, false)
	for _, tt := range []struct {
		name               string
		offered, answering []Suite
		want               Suite
	}{
		{"both have AES", withAES, withAES, AES256GCM},
		{"client has not", without, withAES, ChaCha20Poly1305},
		{"server has not", withAES, without, ChaCha20Poly1305},
		{"neither has", without, without, ChaCha20Poly1305},
		{"policy of the client", []Suite{AES128GCM}, without, AES128GCM},
		{"policy of the server", withAES, []Suite{AES128GCM, ChaCha20Poly1305}, AES128GCM},
		{"one without AES, one without ChaCha20", without, []Suite{AES128GCM, AES256GCM}, AES256GCM},
		{"nothing in common", []Suite{AES128GCM}, []Suite{AES256GCM}, 0},
		{"nothing offered", nil, withAES, 0},
		{"unknown ones", []Suite{7, 0}, []Suite{7, 0}, 0},
	} {
		if got, ok := Choose(tt.offered, tt.answering); got != tt.want || ok != (tt.want != 0) {
			t.Errorf("%s: %v, %v", tt.name, got, ok)
		}
	}
}

func TestLimits(t *testing.T) {
	for size, want := range map[int]uint64{0: 1 << 26, 1500: 1 << 26, 2048: 1 << 26, 2049: 1 << 23, 65535: 1 << 23} {
		if got := PacketLimit(size); got != want {
			t.Errorf("packets of %d bytes: %d", size, got)
		}
	}
}

func TestNothingPrintsKeys(t *testing.T) {
	for _, s := range suites {
		key := bytes.Repeat([]byte{0xab}, s.KeyBytes())
		p, err := s.NewPacketKey(key, bytes.Repeat([]byte{0xab}, NonceBytes))
		if err != nil {
			t.Fatal(err)
		}
		h, err := s.NewHeaderKey(key)
		if err != nil {
			t.Fatal(err)
		}
		type keys struct {
			p *PacketKey
			h *HeaderKey
			P *PacketKey
			H *HeaderKey
		}
		k := keys{p, h, p, h}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("keys", "packet", p, "header", h, "both", k)
		text, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		out := []string{log.String(), string(text)}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
			out = append(out, fmt.Sprintf(verb+verb+verb, p, h, k))
		}
		for _, text := range out {
			for _, secret := range []string{"abab", "ABAB", "171 171", "171,171", "0xab, 0xab", "\xab\xab", `\xab\xab`, "q6ur"} {
				if strings.Contains(text, secret) {
					t.Errorf("%v: %q in %s", s, secret, text)
				}
			}
		}
	}
}

func TestMaskAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, s := range suites {
		h, err := s.NewHeaderKey(make([]byte, s.KeyBytes()))
		if err != nil {
			t.Fatal(err)
		}
		mask, sample := new([MaskBytes]byte), new([SampleBytes]byte)
		if n := testing.AllocsPerRun(1000, func() { h.Mask(mask, sample) }); n != 0 {
			t.Errorf("%v: %v allocations", s, n)
		}
	}
}

func BenchmarkMask(b *testing.B) {
	for _, s := range suites {
		b.Run(s.String(), func(b *testing.B) {
			h, err := s.NewHeaderKey(make([]byte, s.KeyBytes()))
			if err != nil {
				b.Fatal(err)
			}
			mask, sample := new([MaskBytes]byte), new([SampleBytes]byte)
			b.ReportAllocs()
			for b.Loop() {
				h.Mask(mask, sample)
			}
		})
	}
}

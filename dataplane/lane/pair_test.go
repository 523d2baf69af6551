package lane

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
)

var (
	allSuitesTested = []aead.Suite{aead.AES256GCM, aead.AES128GCM, aead.ChaCha20Poly1305}
	testID          = ConnectionID{7, 1, 2, 3, 4, 5, 6, 8}
)

// testKeys are keys of an epoch: for one seed and epoch always the same, for others always others.
func testKeys(tb testing.TB, suite aead.Suite, seed byte, epoch uint32) Keys {
	tb.Helper()
	key := bytes.Repeat([]byte{seed}, suite.KeyBytes())
	binary.BigEndian.PutUint32(key, epoch)
	iv := bytes.Repeat([]byte{^seed}, aead.NonceBytes)
	binary.BigEndian.PutUint32(iv, epoch)
	k, err := suite.NewPacketKey(key, iv)
	if err != nil {
		tb.Fatal(err)
	}
	return Keys{epoch, k}
}

func testHeaderKey(tb testing.TB, suite aead.Suite, seed byte) *aead.HeaderKey {
	tb.Helper()
	h, err := suite.NewHeaderKey(bytes.Repeat([]byte{seed ^ 0x55}, suite.KeyBytes()))
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// newPair makes both ends of one direction of a lane in epoch 0. edit may be nil.
func newPair(tb testing.TB, suite aead.Suite, edit func(*SealerConfig)) (*Sealer, *Opener) {
	tb.Helper()
	cfg := SealerConfig{
		Keys: testKeys(tb, suite, 1, 0), Header: testHeaderKey(tb, suite, 1), ID: testID, MaxPacketBytes: 1500,
	}
	if edit != nil {
		edit(&cfg)
	}
	s, err := NewSealer(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	o, err := NewOpener(OpenerConfig{Keys: cfg.Keys, Header: cfg.Header})
	if err != nil {
		tb.Fatal(err)
	}
	return s, o
}

// seal returns one packet with the given frames.
func seal(tb testing.TB, s *Sealer, frames []byte) []byte {
	tb.Helper()
	out := make([]byte, OverheadBytes+len(frames))
	n, v := s.Seal(out, frames)
	if v != VerdictOK || n != len(out) {
		tb.Fatalf("seal: %d bytes, %v", n, v)
	}
	return out
}

// open opens a copy of the packet.
func open(o *Opener, packet []byte, nowNanos int64) ([]byte, uint64, Verdict) {
	return o.Open(bytes.Clone(packet), nowNanos)
}

// mustOpen opens a copy of the packet and checks number and content.
func mustOpen(tb testing.TB, o *Opener, packet []byte, nowNanos int64, number uint64, frames []byte) {
	tb.Helper()
	got, n, v := open(o, packet, nowNanos)
	if v != VerdictOK || n != number || !bytes.Equal(got, frames) {
		tb.Fatalf("opened number %d with %d bytes: %v; want number %d, %q", n, len(got), v, number, frames)
	}
}

func mustRefuse(tb testing.TB, o *Opener, packet []byte, nowNanos int64, want Verdict) {
	tb.Helper()
	if frames, _, v := open(o, packet, nowNanos); v != want || frames != nil {
		tb.Fatalf("verdict %v with %d bytes, want %v", v, len(frames), want)
	}
}

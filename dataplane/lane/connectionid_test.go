package lane

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestConnectionIDsAreIssuedOnce(t *testing.T) {
	g, err := NewIDGenerator(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[[7]byte]bool{}
	var ones [56]int
	const count = 200_000
	for i := range count {
		id := g.Next(byte(i % 3))
		tail := [7]byte(id[1:])
		if id.Socket() != byte(i%3) || seen[tail] {
			t.Fatalf("connection ID %v, number %d", id, i)
		}
		seen[tail] = true
		for bit := range ones {
			ones[bit] += int(tail[bit/8]>>(bit%8)) & 1
		}
	}
	for bit, n := range ones { // 12 standard deviations of a fair coin are 2,683
		if n < count/2-3000 || n > count/2+3000 {
			t.Errorf("bit %d is set in %d of %d", bit, n, count)
		}
	}
}

// TestPermutation checks that no two counters meet at the edges of the halves either.
func TestPermutation(t *testing.T) {
	g, err := NewIDGenerator(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]uint64{}
	for _, n := range []uint64{0, 1, 1<<28 - 1, 1 << 28, 1<<28 + 1, 1<<56 - 1, 1 << 55} {
		p := g.permute(n)
		if other, ok := seen[p]; ok || p >= 1<<56 {
			t.Errorf("%d and %d are both %d", n, other, p)
		}
		seen[p] = n
	}
}

func TestGeneratorsDiffer(t *testing.T) {
	a, errA := NewIDGenerator(rand.Reader)
	b, errB := NewIDGenerator(rand.Reader)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if a.Next(0) == b.Next(0) {
		t.Error("two generators begin with the same connection ID")
	}
	if _, err := NewIDGenerator(strings.NewReader("short")); !errors.Is(err, errEntropy) {
		t.Errorf("without randomness: %v", err)
	}
}

func TestResetToken(t *testing.T) {
	key := [ResetKeyBytes]byte{1, 2, 3}
	id := ConnectionID{4, 5, 6}
	h := hmac.New(sha256.New, key[:])
	h.Write(id[:])
	if got := NewResetter(key).Token(id); !bytes.Equal(got[:], h.Sum(nil)[:16]) {
		t.Error("the token is not the one that QUIC connections of the host use")
	}
	if NewResetter(key).Token(id) == NewResetter([ResetKeyBytes]byte{1}).Token(id) {
		t.Error("the token does not depend on the key")
	}
}

func TestResetTokenOf(t *testing.T) {
	want := NewResetter([ResetKeyBytes]byte{9}).Token(ConnectionID{1})
	for n := range 1500 {
		packet := append(bytes.Repeat([]byte{0x40}, n), want[:]...)
		got, ok := ResetTokenOf(packet)
		if ok != (len(packet) >= minResetBytes) || ok && got != want {
			t.Fatalf("%d bytes: %v", len(packet), ok)
		}
		packet[0] |= 0x80
		if _, ok := ResetTokenOf(packet); ok {
			t.Fatal("a long header is taken for a reset")
		}
	}
	if _, ok := ResetTokenOf(nil); ok {
		t.Error("nothing is a reset")
	}
	other := want
	other[ResetTokenBytes-1] ^= 1
	if !want.Equal(want) || want.Equal(other) {
		t.Error("compared wrongly")
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	token := ResetToken{0xab, 0xcd}
	n, err := NewServer(testConfig(keyed(1)))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", token, "issued", IssuedID{Token: token})
	text, err := json.Marshal(IssuedID{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(text) + fmt.Sprintf("%v %x %d %+v %v %+v", token, token, token, IssuedID{Token: token}, n, n)
	for _, leak := range []string{"abcd", "171 205", "171,205", "0xab"} {
		if strings.Contains(all, leak) {
			t.Errorf("%q in %s", leak, all)
		}
	}
}

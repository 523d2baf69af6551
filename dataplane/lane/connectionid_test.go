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
	"testing/iotest"
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

func TestReset(t *testing.T) {
	r := NewResetter([ResetKeyBytes]byte{9})
	id := ConnectionID{1}
	tokens := []ResetToken{r.Token(ConnectionID{2}), r.Token(id)}
	for trigger := range 1500 {
		packet, ok, err := r.AppendReset(nil, id, trigger, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if ok != (trigger > minResetBytes) {
			t.Fatalf("%d bytes are answered: %v", trigger, ok)
		}
		if !ok {
			continue
		}
		if len(packet) >= trigger || len(packet) > maxResetBytes || packet[0]&0xc0 != 0x40 {
			t.Fatalf("reset of %d bytes for %d, first byte %x", len(packet), trigger, packet[0])
		}
		if !IsReset(packet, tokens) || IsReset(packet, tokens[:1]) || IsReset(packet, nil) {
			t.Fatalf("reset of %d bytes is not recognised by its token alone", len(packet))
		}
		packet[len(packet)-1] ^= 1
		if IsReset(packet, tokens) {
			t.Fatal("a forged token is taken")
		}
	}
	token := r.Token(id)
	if IsReset(append(make([]byte, minResetBytes-1-ResetTokenBytes), token[:]...), tokens) {
		t.Error("a reset that is too short is taken")
	}
	long := append([]byte{0xc0, 0, 0, 0, 0, 0, 0, 0}, token[:]...)
	if IsReset(long, tokens) {
		t.Error("a long header is taken for a reset")
	}
	if _, ok, err := r.AppendReset(nil, id, 100, iotest.ErrReader(errors.New("broken"))); ok || !errors.Is(err, errEntropy) {
		t.Errorf("without randomness: %v, %v", ok, err)
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

package lane

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
)

func TestSealOpen(t *testing.T) {
	for _, suite := range allSuitesTested {
		t.Run(suite.String(), func(t *testing.T) {
			s, o := newPair(t, suite, nil)
			for i, size := range []int{1, 2, 15, 16, 17, 64, 1400, 1500 - OverheadBytes} {
				frames := bytes.Repeat([]byte{byte(i + 1)}, size)
				packet := seal(t, s, frames)
				if packet[0]&0xe0 != fixedBit {
					t.Errorf("first byte %#x: not a short header with spin bit 0", packet[0])
				}
				if ConnectionID(packet[1:]) != testID {
					t.Errorf("connection ID %x", packet[1:9])
				}
				mustOpen(t, o, packet, 1, uint64(i), frames)
			}
		})
	}
}

func TestSealLeavesTheRestOfOutAlone(t *testing.T) {
	s, _ := newPair(t, aead.AES256GCM, nil)
	out := bytes.Repeat([]byte{0xee}, 200)
	n, v := s.Seal(out, make([]byte, 50))
	if v != VerdictOK || n != 50+OverheadBytes {
		t.Fatal(n, v)
	}
	if !bytes.Equal(out[n:], bytes.Repeat([]byte{0xee}, 200-n)) {
		t.Error("wrote behind the packet")
	}
}

func TestSealRefuses(t *testing.T) {
	tests := []struct {
		name       string
		edit       func(*SealerConfig)
		out, frame int
		want       Verdict
	}{
		{"no frames", nil, 100, 0, VerdictSize},
		{"longest", nil, 1500, 1500 - OverheadBytes, VerdictOK},
		{"too long", nil, 2000, 1501 - OverheadBytes, VerdictSize},
		{"no room", nil, OverheadBytes, 1, VerdictSize},
		{"nil out", nil, 0, 1, VerdictSize},
		{"last number", func(c *SealerConfig) { c.FirstNumber, c.KeyFirstNumber = NumberLimit-1, NumberLimit-1 }, 100, 1, VerdictOK},
		{"last of the key", func(c *SealerConfig) { c.FirstNumber = 1<<26 - 1 }, 100, 1, VerdictOK},
		{"key used up", func(c *SealerConfig) { c.FirstNumber = 1 << 26 }, 100, 1, VerdictKeyLimit},
		{"key used up with packets of 2048", func(c *SealerConfig) {
			c.FirstNumber, c.MaxPacketBytes = 1<<26-1, 2048
		}, 100, 1, VerdictOK},
		{"last of the key with long packets", func(c *SealerConfig) {
			c.FirstNumber, c.MaxPacketBytes = 1<<23-1, 2049
		}, 100, 1, VerdictOK},
		{"key used up with long packets", func(c *SealerConfig) {
			c.FirstNumber, c.MaxPacketBytes = 1<<23, 2049
		}, 100, 1, VerdictKeyLimit},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := newPair(t, aead.AES128GCM, tt.edit)
			before, out := s.NextNumber(), make([]byte, tt.out)
			n, v := s.Seal(out, make([]byte, tt.frame))
			if v != tt.want {
				t.Fatalf("%v, want %v", v, tt.want)
			}
			if v != VerdictOK && (n != 0 || s.NextNumber() != before || !bytes.Equal(out, make([]byte, tt.out))) {
				t.Errorf("a refused packet had an effect: %d bytes, next number %d", n, s.NextNumber())
			}
		})
	}
}

func TestNumbersEnd(t *testing.T) {
	s, o := newPair(t, aead.AES256GCM, func(c *SealerConfig) { c.FirstNumber, c.KeyFirstNumber = NumberLimit-2, NumberLimit-2 })
	o.window.next = NumberLimit - 3
	mustOpen(t, o, seal(t, s, []byte{1}), 1, NumberLimit-2, []byte{1})
	mustOpen(t, o, seal(t, s, []byte{1}), 1, NumberLimit-1, []byte{1})
	if _, v := s.Seal(make([]byte, 100), []byte{1}); v != VerdictNumbersUsed {
		t.Fatal(v)
	}
	if err := s.Install(testKeys(t, aead.AES256GCM, 1, 1)); err != nil {
		t.Fatal(err)
	}
	s.Begin()
	if _, v := s.Seal(make([]byte, 100), []byte{1}); v != VerdictNumbersUsed {
		t.Fatalf("after a ratchet: %v", v)
	}
}

func TestNewSealerRefuses(t *testing.T) {
	good := SealerConfig{
		Keys: testKeys(t, aead.AES256GCM, 1, 0), Header: testHeaderKey(t, aead.AES256GCM, 1), MaxPacketBytes: 1500,
	}
	tests := []struct {
		name string
		edit func(*SealerConfig)
		want error
	}{
		{"no key", func(c *SealerConfig) { c.Keys.Key = nil }, ErrKeySuite},
		{"no header key", func(c *SealerConfig) { c.Header = nil }, ErrKeySuite},
		{"two suites", func(c *SealerConfig) { c.Header = testHeaderKey(t, aead.AES128GCM, 1) }, ErrKeySuite},
		{"number", func(c *SealerConfig) { c.FirstNumber = NumberLimit }, ErrNumber},
		{"number before its key's", func(c *SealerConfig) { c.KeyFirstNumber = 1 }, ErrNumber},
		{"no room", func(c *SealerConfig) { c.MaxPacketBytes = OverheadBytes }, ErrPacketSize},
	}
	for _, tt := range tests {
		cfg := good
		tt.edit(&cfg)
		if _, err := NewSealer(cfg); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := NewOpener(OpenerConfig{Keys: good.Keys}); !errors.Is(err, ErrKeySuite) {
		t.Errorf("opener without header key: %v", err)
	}
}

func TestInstall(t *testing.T) {
	const suite = aead.AES256GCM
	s, o := newPair(t, suite, nil)
	seal(t, s, []byte{1})
	if err := s.Install(testKeys(t, suite, 1, 0)); !errors.Is(err, ErrKeyEpoch) {
		t.Errorf("same epoch: %v", err)
	}
	if err := s.Install(testKeys(t, aead.AES128GCM, 1, 1)); !errors.Is(err, ErrKeySuite) {
		t.Errorf("other suite: %v", err)
	}
	if err := s.Install(testKeys(t, suite, 1, 1)); err != nil {
		t.Fatal(err)
	}
	if s.Epoch() != 0 {
		t.Error("keys took effect within a batch")
	}
	mustOpen(t, o, seal(t, s, []byte{2}), 1, 1, []byte{2})
	s.Begin()
	if s.Epoch() != 1 || s.NextNumber() != 2 || s.KeyPackets() != 0 {
		t.Errorf("epoch %d, next number %d, packets of the key %d", s.Epoch(), s.NextNumber(), s.KeyPackets())
	}
	packet := seal(t, s, []byte{3})
	mustRefuse(t, o, packet, 1, VerdictNoKey)
	if err := o.Install(testKeys(t, suite, 1, 1)); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, o, packet, 1, 2, []byte{3})
	if s.KeyPackets() != 1 {
		t.Errorf("packets of the key: %d", s.KeyPackets())
	}

	// Keys that were never taken can be replaced, and taken back.
	for range 2 {
		if err := s.Install(testKeys(t, suite, 2, 2)); err != nil {
			t.Fatal(err)
		}
	}
	if !s.Withdraw() || s.Withdraw() {
		t.Error("Withdraw is wrong about what was pending")
	}
	s.Begin()
	if s.Epoch() != 1 {
		t.Errorf("withdrawn keys took effect: epoch %d", s.Epoch())
	}
}

// TestInstallAfter is the server's side of a ratchet: it seals with the new epoch once it has opened a packet of it.
func TestInstallAfter(t *testing.T) {
	const suite = aead.ChaCha20Poly1305
	fromClient, atServer := newPair(t, suite, nil)
	fromServer, _ := newPair(t, suite, nil)
	e1 := testKeys(t, suite, 1, 1)
	if err := errors.Join(atServer.Install(e1), fromServer.InstallAfter(e1, atServer)); err != nil {
		t.Fatal(err)
	}
	fromServer.Begin()
	if fromServer.Epoch() != 0 {
		t.Fatal("the server seals with an epoch that the client may not have")
	}
	mustOpen(t, atServer, seal(t, fromClient, []byte{1}), 1, 0, []byte{1})
	fromServer.Begin()
	if fromServer.Epoch() != 0 {
		t.Fatal("a packet of epoch 0 counted as one of epoch 1")
	}
	if err := fromClient.Install(e1); err != nil {
		t.Fatal(err)
	}
	fromClient.Begin()
	mustOpen(t, atServer, seal(t, fromClient, []byte{1}), 1, 1, []byte{1})
	if epoch, opened := atServer.Epoch(); epoch != 1 || !opened {
		t.Errorf("opener says epoch %d, %v", epoch, opened)
	}
	fromServer.Begin()
	if fromServer.Epoch() != 1 {
		t.Error("the server did not follow")
	}
}

func TestKeyLimitEndsWithRatchet(t *testing.T) {
	const suite = aead.AES256GCM
	s, o := newPair(t, suite, func(c *SealerConfig) { c.FirstNumber = 1<<26 - 1 })
	o.window.next = 1<<26 - 1
	seal(t, s, []byte{1})
	out := make([]byte, 100)
	if _, v := s.Seal(out, []byte{1}); v != VerdictKeyLimit {
		t.Fatal(v)
	}
	if err := errors.Join(s.Install(testKeys(t, suite, 1, 1)), o.Install(testKeys(t, suite, 1, 1))); err != nil {
		t.Fatal(err)
	}
	s.Begin()
	mustOpen(t, o, seal(t, s, []byte{9}), 1, 1<<26, []byte{9})
}

func TestExport(t *testing.T) {
	const suite = aead.AES256GCM
	old, o := newPair(t, suite, func(c *SealerConfig) { c.FirstNumber, c.KeyFirstNumber = 1000, 900 })
	seal(t, old, []byte{1})
	state := old.Export()
	if state != (SealerState{Epoch: 0, ID: testID, NextNumber: 1001, KeyFirstNumber: 900}) {
		t.Fatalf("exported %+v", state)
	}
	if err := old.Install(testKeys(t, suite, 1, 1)); err != nil {
		t.Fatal(err)
	}
	old.Begin()
	if _, v := old.Seal(make([]byte, 100), []byte{1}); v != VerdictExported || old.Epoch() != 0 {
		t.Fatalf("an exported sealer seals: %v, epoch %d", v, old.Epoch())
	}
	successor, _ := newPair(t, suite, func(c *SealerConfig) {
		c.FirstNumber, c.KeyFirstNumber = state.NextNumber+HandoverSkip, state.KeyFirstNumber
	})
	mustOpen(t, o, seal(t, successor, []byte{2}), 1, 1001+1<<20, []byte{2})
	if got := successor.KeyPackets(); got != 102+1<<20 {
		t.Errorf("the successor counts %d packets of the key", got)
	}
	old.Fallback()
	old.Fallback()
	if got := old.NextNumber(); got != 1001+1<<21 {
		t.Errorf("after a fallback the next number is %d", got)
	}
	mustOpen(t, o, seal(t, old, []byte{3}), 1, 1001+1<<21, []byte{3})
}

func TestSealOpenAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, suite := range allSuitesTested {
		s, o := newPair(t, suite, nil)
		frames := append(AppendDatagramHeader(nil, 1, 2), make([]byte, 1200)...)
		out := make([]byte, 1500)
		allocs := testing.AllocsPerRun(1000, func() {
			s.Begin()
			n, v := s.Seal(out, frames)
			if v != VerdictOK {
				t.Fatal(v)
			}
			got, _, v := o.Open(out[:n], 1)
			if v != VerdictOK {
				t.Fatal(v)
			}
			o.CountECN(2)
			if _, ok := ParseDatagram(got); !ok {
				t.Fatal("not a datagram")
			}
			if _, _, v := o.Open(out[:n], 1); v == VerdictOK { // spoilt by the first time
				t.Fatal(v)
			}
		})
		if allocs != 0 {
			t.Errorf("%v: %v allocations", suite, allocs)
		}
	}
}

func TestNothingPrintsKeys(t *testing.T) {
	s, o := newPair(t, aead.ChaCha20Poly1305, nil)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		if got := fmt.Sprintf(verb+verb, s, o); got != redacted+redacted {
			t.Errorf("%s: %s", verb, got)
		}
	}
}

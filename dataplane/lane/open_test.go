package lane

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
)

func TestOpenRefuses(t *testing.T) {
	for _, suite := range allSuitesTested {
		t.Run(suite.String(), func(t *testing.T) {
			s, o := newPair(t, suite, nil)
			frames := []byte("frames of a packet")
			packet := seal(t, s, frames)
			before := *o.keys.Load()

			for _, form := range [][]byte{
				nil,
				{},
				packet[:1], packet[:OverheadBytes], append([]byte{packet[0] &^ fixedBit}, packet[1:]...),
				append([]byte{packet[0] | longHeaderBit}, packet[1:]...),
			} {
				mustRefuse(t, o, form, 1, VerdictForm)
			}
			for i := range len(packet) * 8 {
				flipped := bytes.Clone(packet)
				flipped[i/8] ^= 1 << (i % 8)
				got, _, v := o.Open(flipped, 1)
				if got != nil || v != VerdictForged && v != VerdictForm && v != VerdictNoKey {
					t.Fatalf("bit %d flipped: %v", i, v)
				}
			}
			for n := MinPacketBytes; n < len(packet); n++ {
				got, _, v := open(o, packet[:n], 1)
				if got != nil || v == VerdictOK {
					t.Fatalf("cut to %d bytes: %v", n, v)
				}
			}
			mustRefuse(t, o, append(bytes.Clone(packet), 0), 1, VerdictForged)
			other, _ := newPair(t, suite, func(c *SealerConfig) { c.Keys = testKeys(t, suite, 2, 0) })
			mustRefuse(t, o, seal(t, other, frames), 1, VerdictForged)

			if o.window != (window{}) || *o.keys.Load() != before || o.stats.Verdicts[VerdictOK] != 0 ||
				o.stats.HighestNanos != 0 {
				t.Error("packets that are not authentic changed state")
			}
			mustOpen(t, o, packet, 1, 0, frames)
			mustRefuse(t, o, packet, 1, VerdictReplayed)
		})
	}
}

// TestOpenReservedBits makes packets that are authentic and wrong, as only the other end can.
func TestOpenReservedBits(t *testing.T) {
	for _, bits := range []byte{0x08, 0x10, 0x18, 0x01, 0x02, 0x03} {
		s, o := newPair(t, aead.AES256GCM, nil)
		right := s.first
		s.first ^= bits
		packet := seal(t, s, []byte{1})
		mustRefuse(t, o, packet, 1, VerdictReserved)
		if o.NextNumber() != 0 {
			t.Error("a wrong packet moved the window")
		}
		s.first = right
		mustOpen(t, o, seal(t, s, []byte{1}), 1, 1, []byte{1})
	}
	s, o := newPair(t, aead.AES256GCM, nil)
	s.first |= 0x20 // the spin bit may have any value (RFC 9000 section 17.4)
	mustOpen(t, o, seal(t, s, []byte{1}), 1, 0, []byte{1})
}

// TestOpenWrongPhase: sealed with the current key but under the other phase bit, a packet must not pass.
func TestOpenWrongPhase(t *testing.T) {
	s, o := newPair(t, aead.AES256GCM, nil)
	s.first ^= 1 << phaseShift
	mustRefuse(t, o, seal(t, s, []byte{1}), 1, VerdictNoKey)
}

func TestOpenOld(t *testing.T) {
	s, o := newPair(t, aead.AES128GCM, nil)
	first := seal(t, s, []byte{1})
	second := seal(t, s, []byte{2})
	s.next = ReplayWindow
	mustOpen(t, o, seal(t, s, []byte{3}), 1, ReplayWindow, []byte{3})
	mustRefuse(t, o, first, 1, VerdictOld)
	mustOpen(t, o, second, 1, 1, []byte{2})
}

func TestNumbersCrossThirtyTwoBits(t *testing.T) {
	s, o := newPair(t, aead.AES256GCM, func(c *SealerConfig) { c.FirstNumber, c.KeyFirstNumber = 1<<32-3, 1<<32-3 })
	o.window.next = 1<<32 - 100
	var late []byte
	for n := uint64(1<<32 - 3); n < 1<<32+3; n++ {
		packet := seal(t, s, []byte{byte(n)})
		if n == 1<<32-1 {
			late = packet
			continue
		}
		mustOpen(t, o, packet, 1, n, []byte{byte(n)})
	}
	mustOpen(t, o, late, 1, 1<<32-1, []byte{0xff})
}

// TestRatchet walks through the opener's keys: next, current, previous, gone.
func TestRatchet(t *testing.T) {
	const suite = aead.AES256GCM
	const second = 1_000_000_000
	s, o := newPair(t, suite, nil)
	step := func(epoch uint32) {
		t.Helper()
		keys := testKeys(t, suite, 1, epoch)
		if err := errors.Join(o.Install(keys), s.Install(keys)); err != nil {
			t.Fatal(err)
		}
	}
	if epoch, opened := o.Epoch(); epoch != 0 || opened {
		t.Fatal(epoch, opened)
	}
	mustOpen(t, o, seal(t, s, []byte{0}), 0, 0, []byte{0})
	if epoch, opened := o.Epoch(); epoch != 0 || !opened {
		t.Fatal(epoch, opened)
	}
	late := [][]byte{seal(t, s, []byte{1}), seal(t, s, []byte{2}), seal(t, s, []byte{3})}
	step(1)
	mustOpen(t, o, late[0], 0, 1, []byte{1}) // installed is not switched
	if epoch, _ := o.Epoch(); epoch != 0 {
		t.Fatalf("epoch %d before any packet of it", epoch)
	}
	s.Begin()
	overtaken, switching := seal(t, s, []byte{4}), seal(t, s, []byte{5})
	mustOpen(t, o, switching, 10*second, 5, []byte{5})
	if epoch, opened := o.Epoch(); epoch != 1 || !opened {
		t.Fatal(epoch, opened)
	}
	mustOpen(t, o, overtaken, 10*second, 4, []byte{4})
	mustOpen(t, o, late[1], 13*second-1, 2, []byte{2})
	if o.Expire(13*second - 1) {
		t.Error("the previous key expired early")
	}
	mustRefuse(t, o, late[2], 13*second, VerdictNoKey)
	if !o.Expire(13*second) || o.keys.Load().previous != nil {
		t.Error("the previous key is still here")
	}
	step(2)
	mustRefuse(t, o, late[2], 14*second, VerdictNoKey) // epoch 2 has the same phase bit as epoch 0
	s.Begin()
	mustOpen(t, o, seal(t, s, []byte{6}), 14*second, 6, []byte{6})
}

// TestRatchetTwiceWithinTheGrace has the previous, current and next key at once, two of them with one phase bit.
func TestRatchetTwiceWithinTheGrace(t *testing.T) {
	const suite = aead.AES128GCM
	s, o := newPair(t, suite, nil)
	mustOpen(t, o, seal(t, s, []byte{0}), 0, 0, []byte{0})
	late := seal(t, s, []byte{1})
	var packets [][]byte
	for epoch := uint32(1); epoch <= 2; epoch++ {
		keys := testKeys(t, suite, 1, epoch)
		if err := s.Install(keys); err != nil {
			t.Fatal(err)
		}
		s.Begin()
		packets = append(packets, seal(t, s, []byte{byte(epoch)}), seal(t, s, []byte{byte(epoch)}))
	}
	if err := o.Install(testKeys(t, suite, 1, 1)); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, o, packets[1], 1, 3, []byte{1})
	if err := o.Install(testKeys(t, suite, 1, 2)); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, o, late, 2, 1, []byte{1})
	mustOpen(t, o, packets[0], 2, 2, []byte{1})
	mustOpen(t, o, packets[3], 3, 5, []byte{2})
	mustOpen(t, o, packets[2], 3, 4, []byte{2})
}

func TestOpenerInstallRefuses(t *testing.T) {
	_, o := newPair(t, aead.AES256GCM, nil)
	for _, epoch := range []uint32{0, 2, 1<<32 - 1} {
		if err := o.Install(testKeys(t, aead.AES256GCM, 1, epoch)); !errors.Is(err, ErrKeyEpoch) {
			t.Errorf("epoch %d: %v", epoch, err)
		}
	}
	if err := o.Install(testKeys(t, aead.AES128GCM, 1, 1)); !errors.Is(err, ErrKeySuite) {
		t.Errorf("other suite: %v", err)
	}
	if err := o.Install(Keys{Epoch: 1}); !errors.Is(err, ErrKeySuite) {
		t.Errorf("no key: %v", err)
	}
	if err := o.Keep(1, 0); !errors.Is(err, ErrKeyEpoch) {
		t.Errorf("keep of what is not there: %v", err)
	}
}

// TestKeepCurrent: at an adoption the client turns out never to have had epoch 1; the next ratchet makes another one.
func TestKeepCurrent(t *testing.T) {
	const suite = aead.AES256GCM
	s, o := newPair(t, suite, nil)
	if err := o.Install(testKeys(t, suite, 8, 1)); err != nil {
		t.Fatal(err)
	}
	if err := o.Keep(0, 0); err != nil {
		t.Fatal(err)
	}
	if o.keys.Load().next != nil {
		t.Error("the other key is still here")
	}
	fresh := testKeys(t, suite, 9, 1)
	if err := errors.Join(o.Install(fresh), s.Install(fresh)); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, o, seal(t, s, []byte{1}), 0, 0, []byte{1})
	s.Begin()
	mustOpen(t, o, seal(t, s, []byte{2}), 0, 1, []byte{2})
}

// TestKeepNext: at an adoption both have epoch 1, but the opener has not opened a packet of it.
func TestKeepNext(t *testing.T) {
	const suite = aead.AES256GCM
	s, o := newPair(t, suite, nil)
	late, later := seal(t, s, []byte{0}), seal(t, s, []byte{1})
	e1, e2 := testKeys(t, suite, 1, 1), testKeys(t, suite, 1, 2)
	if err := errors.Join(s.Install(e1), o.Install(e1), o.Keep(1, 100)); err != nil {
		t.Fatal(err)
	}
	s.Begin()
	one := seal(t, s, []byte{2})
	if err := s.Install(e2); err != nil {
		t.Fatal(err)
	}
	s.Begin()
	two := seal(t, s, []byte{3})

	mustOpen(t, o, late, 101, 0, []byte{0}) // epoch 0 has its grace
	if epoch, opened := o.Epoch(); epoch != 1 || opened {
		t.Fatal(epoch, opened)
	}
	if err := o.Install(e2); err != nil {
		t.Fatal(err)
	}
	// Without a packet of epoch 1 nothing tells epoch 0 from epoch 2, and the new one counts.
	mustOpen(t, o, two, 102, 3, []byte{3})
	mustOpen(t, o, one, 103, 2, []byte{2})
	mustRefuse(t, o, later, 104, VerdictForged)
}

func TestFailedOpensCloseTheLane(t *testing.T) {
	s, o := newPair(t, aead.ChaCha20Poly1305, nil)
	packet := seal(t, s, []byte{1})
	forged := bytes.Clone(packet)
	forged[len(forged)-1] ^= 1
	o.keys.Load().current.failed = aead.MaxFailedOpens - 2
	mustRefuse(t, o, forged, 1, VerdictForged)
	mustRefuse(t, o, forged, 1, VerdictClosed)
	mustRefuse(t, o, packet, 1, VerdictClosed)
}

func TestReport(t *testing.T) {
	s, o := newPair(t, aead.AES256GCM, nil)
	if _, ok := o.Report(5); ok {
		t.Error("a report about nothing")
	}
	var packets [][]byte
	for range 6 {
		packets = append(packets, seal(t, s, []byte{1}))
	}
	for i, n := range []int{0, 2, 1, 2, 5} { // 2 comes twice, 3 and 4 are lost
		if _, _, v := open(o, packets[n], int64(1_000_000*(i+1))); v == VerdictOK {
			o.CountECN([]uint8{2, 3, 1, 0, 0x82}[i])
		}
	}
	r, ok := o.Report(5_700_000)
	want := Report{
		Highest: 5, Received: 4, Reordered: 1, Duplicates: 1, ECT0: 2, ECT1: 1, CE: 1,
		DelayMicros: 700, ArrivalMicros: 4000,
	}
	if !ok || r != want {
		t.Errorf("%+v, want %+v", r, want)
	}
	var f Frames
	if !ParseFrames(AppendReport(nil, &r), &f) || f.Set != HasReport || f.Report != want {
		t.Errorf("the report did not survive its frame: %+v", f)
	}
	if r, _ = o.Report(0); r.DelayMicros != 0 {
		t.Errorf("a clock that went back: %d", r.DelayMicros)
	}
}

func TestOpenerHandover(t *testing.T) {
	const suite = aead.AES256GCM
	s, old := newPair(t, suite, func(c *SealerConfig) { c.FirstNumber, c.KeyFirstNumber = 1<<33, 1<<33 })
	old.window.next = 1 << 33
	first, late, last := seal(t, s, []byte{0}), seal(t, s, []byte{1}), seal(t, s, []byte{2})
	mustOpen(t, old, first, 1, 1<<33, []byte{0})
	mustOpen(t, old, last, 1, 1<<33+2, []byte{2})
	state := old.Export()
	cfg := OpenerConfig{Keys: testKeys(t, suite, 1, 0), Header: testHeaderKey(t, suite, 1), Resume: &state}
	successor, err := NewOpener(cfg)
	if err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, successor, first, 2, VerdictReplayed)
	mustRefuse(t, successor, last, 2, VerdictReplayed)
	mustOpen(t, successor, late, 2, 1<<33+1, []byte{1})
	if r, _ := successor.Report(2); r.Received != 3 || r.Highest != 1<<33+2 || r.Reordered != 1 {
		t.Errorf("counters were not handed over: %+v", r)
	}
	state.NextNumber = NumberLimit + 1
	if _, err := NewOpener(cfg); !errors.Is(err, ErrNumber) {
		t.Errorf("number out of range: %v", err)
	}
	state = old.Export()
	state.Epoch = 1
	if _, err := NewOpener(cfg); !errors.Is(err, ErrKeyEpoch) {
		t.Errorf("state of another epoch: %v", err)
	}
}

// TestKeysFromOtherGoroutines ratchets while packets pass; the race detector looks on.
func TestKeysFromOtherGoroutines(t *testing.T) {
	const suite, epochs = aead.AES128GCM, 200
	s, o := newPair(t, suite, nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		for epoch := uint32(1); epoch <= epochs; epoch++ {
			keys := testKeys(t, suite, 1, epoch)
			if err := errors.Join(o.Install(keys), s.Install(keys)); err != nil {
				t.Error(err)
				return
			}
			for {
				if now, opened := o.Epoch(); now == epoch && opened {
					break
				}
				runtime.Gosched()
			}
			o.Expire(PreviousKeyNanos + 1)
		}
	})
	out := make([]byte, 100)
	for n := uint64(0); ; n++ {
		s.Begin()
		length, v := s.Seal(out, []byte{byte(n)})
		if v != VerdictOK {
			t.Fatal(v)
		}
		if frames, number, v := o.Open(out[:length], 0); v != VerdictOK || number != n || frames[0] != byte(n) {
			t.Fatalf("packet %d: %v", n, v)
		}
		if epoch, _ := o.Epoch(); epoch == epochs {
			break
		}
	}
	wg.Wait()
}

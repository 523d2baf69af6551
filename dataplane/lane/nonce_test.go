package lane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/kem"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// ledger remembers every key and nonce that sealed a packet. It finds both from the packet and all keys there ever
// were, not from what a sealer says about itself.
type ledger struct {
	t    *testing.T
	used map[use]bool
	keys map[fingerprint]*aead.PacketKey
}

type (
	fingerprint [aead.TagBytes]byte
	use         struct {
		key   fingerprint
		nonce [aead.NonceBytes]byte
	}
)

func newLedger(t *testing.T) *ledger {
	return &ledger{t: t, used: map[use]bool{}, keys: map[fingerprint]*aead.PacketKey{}}
}

// fingerprintOf tells keys apart, whatever their IV: it is a tag under a nonce of no packet.
func fingerprintOf(k *aead.PacketKey) fingerprint {
	return fingerprint(k.AEAD().Seal(nil, make([]byte, aead.NonceBytes), nil, []byte("fingerprint")))
}

// add takes a key that must be unlike all others.
func (l *ledger) add(k *aead.PacketKey) *aead.PacketKey {
	l.t.Helper()
	id := fingerprintOf(k)
	if l.keys[id] != nil {
		l.t.Fatal("one key for two uses")
	}
	l.keys[id] = k
	return k
}

// sealed notes a packet. number is what the sealer's counter said; that it is the number in the nonce is checked.
func (l *ledger) sealed(packet []byte, header *aead.HeaderKey, number uint64) {
	l.t.Helper()
	plain := append([]byte(nil), packet...)
	var mask [aead.MaskBytes]byte
	header.Mask(&mask, (*[aead.SampleBytes]byte)(packet[HeaderBytes:]))
	plain[0] ^= mask[0] & protectedBits
	for i := range numberBytes {
		plain[numberOffset+i] ^= mask[1+i]
	}
	for id, k := range l.keys {
		nonce := k.IV()
		binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^number)
		if _, err := k.AEAD().Open(nil, nonce[:], plain[HeaderBytes:], plain[:HeaderBytes]); err != nil {
			continue
		}
		if l.used[use{id, nonce}] {
			l.t.Fatalf("key and nonce of number %d were used before", number)
		}
		l.used[use{id, nonce}] = true
		return
	}
	l.t.Fatalf("number %d was sealed with a key or nonce of nobody", number)
}

// end is one direction of one lane, with the chain that both its ends would have.
type end struct {
	*ledger
	suite  aead.Suite
	lane   uint8
	role   keyschedule.Role
	header *aead.HeaderKey
	chain  *keyschedule.Chain
	sealer *Sealer
	opener *Opener // of the same direction
	out    [MinPacketBytes]byte
}

func newEnd(l *ledger, suite aead.Suite, lane uint8, role keyschedule.Role, chain *keyschedule.Chain) *end {
	l.t.Helper()
	header, err := chain.HeaderKey(lane, role, suite)
	if err != nil {
		l.t.Fatal(err)
	}
	e := &end{ledger: l, suite: suite, lane: lane, role: role, header: header, chain: chain}
	keys := e.derive(chain)
	e.sealer = e.start(SealerConfig{Keys: keys})
	if e.opener, err = NewOpener(OpenerConfig{Keys: keys, Header: header}); err != nil {
		l.t.Fatal(err)
	}
	return e
}

func (e *end) derive(chain *keyschedule.Chain) Keys {
	e.t.Helper()
	k, err := chain.PacketKey(e.lane, e.role, e.suite)
	if err != nil {
		e.t.Fatal(err)
	}
	return Keys{chain.Epoch(), e.add(k)}
}

func (e *end) start(cfg SealerConfig) *Sealer {
	e.t.Helper()
	cfg.Header, cfg.ID, cfg.MaxPacketBytes = e.header, testID, 1500
	s, err := NewSealer(cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	return s
}

// send seals n packets with s, or as many as s agrees to, and returns how many.
func (e *end) send(s *Sealer, n int) int {
	e.t.Helper()
	for i := range n {
		number := s.NextNumber()
		if _, v := s.Seal(e.out[:], []byte{FramePing}); v != VerdictOK {
			return i
		}
		e.sealed(e.out[:], e.header, number)
		if _, got, v := e.opener.Open(e.out[:], 0); v == VerdictOK && got != number {
			e.t.Fatalf("opened as number %d, sealed as %d", got, number)
		}
	}
	return n
}

func (e *end) mustSend(s *Sealer, n int) {
	e.t.Helper()
	if got := e.send(s, n); got != n {
		e.t.Fatalf("sealed %d of %d packets", got, n)
	}
}

func newShared(t *testing.T) kem.Shared {
	t.Helper()
	private, err := kem.Generate()
	if err != nil {
		t.Fatal(err)
	}
	_, shared, err := kem.Encapsulate(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return shared
}

func newChain(t *testing.T) *keyschedule.Chain {
	t.Helper()
	chain, err := keyschedule.New(&keyschedule.Exporter{1, 2, 3}, newShared(t))
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

// step makes the following chain; adopting may be nil.
func step(t *testing.T, chain *keyschedule.Chain, adopting *keyschedule.Exporter) *keyschedule.Chain {
	t.Helper()
	next, err := chain.Next(keyschedule.Step{
		Shared: newShared(t), Request: []byte("request"), Answer: []byte("answer"), Adopting: adopting,
	})
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// TestNonceUniqueness enumerates what can happen to a lane and shows that no key ever meets a nonce twice: no two keys
// are equal, and the numbers under one key are distinct.
func TestNonceUniqueness(t *testing.T) {
	t.Run("suite", nonceSuites)
	t.Run("lane", nonceLanes)
	t.Run("ratchet", nonceRatchets)
	t.Run("adoption", nonceAdoptions)
	t.Run("hand-over", nonceHandovers)
	t.Run("limits", nonceLimits)
	t.Run("schedules", nonceSchedules)
}

func nonceSuites(t *testing.T) {
	chain := newChain(t)
	for _, suite := range allSuitesTested {
		t.Run(suite.String(), func(t *testing.T) {
			e := newEnd(newLedger(t), suite, 0, keyschedule.Client, chain)
			e.mustSend(e.sealer, 5000)
			// Across the wrap of what is on the wire.
			far := e.start(SealerConfig{Keys: Keys{0, e.onlyKey()}, FirstNumber: 1<<32 - 500, KeyFirstNumber: 1<<32 - 500})
			e.opener.window.next = 1<<32 - 500
			e.mustSend(far, 1000)
		})
	}
}

func (l *ledger) onlyKey() *aead.PacketKey {
	for _, k := range l.keys {
		return k
	}
	return nil
}

// nonceLanes has every lane number, direction, suite and five epochs of one chain on one ledger, and all seal the same
// packet numbers.
func nonceLanes(t *testing.T) {
	l := newLedger(t)
	chain := newChain(t)
	for range 5 {
		for lane := range 256 {
			for _, role := range []keyschedule.Role{keyschedule.Client, keyschedule.Server} {
				for _, suite := range allSuitesTested {
					k, err := chain.PacketKey(uint8(lane), role, suite)
					if err != nil {
						t.Fatal(err)
					}
					l.add(k)
				}
			}
		}
		chain = step(t, chain, nil)
	}
	if len(l.keys) != 5*256*2*3 {
		t.Fatalf("%d keys", len(l.keys))
	}
	l, chain = newLedger(t), newChain(t)
	for lane := range uint8(4) {
		for _, role := range []keyschedule.Role{keyschedule.Client, keyschedule.Server} {
			for _, suite := range allSuitesTested {
				e := newEnd(l, suite, lane, role, chain)
				e.mustSend(e.sealer, 20)
			}
		}
	}
}

func nonceRatchets(t *testing.T) {
	e := newEnd(newLedger(t), aead.AES256GCM, 0, keyschedule.Server, newChain(t))
	for range 20 {
		e.mustSend(e.sealer, 50)
		before := e.sealer.NextNumber()
		e.chain = step(t, e.chain, nil)
		keys := e.derive(e.chain)
		if err := errors.Join(e.opener.Install(keys), e.sealer.Install(keys)); err != nil {
			t.Fatal(err)
		}
		e.mustSend(e.sealer, 3) // still the old key
		e.sealer.Begin()
		if e.sealer.NextNumber() != before+3 || e.sealer.Epoch() != keys.Epoch {
			t.Fatal("the counter did not go on across a ratchet")
		}
		if err := e.sealer.Install(keys); !errors.Is(err, ErrKeyEpoch) {
			t.Fatalf("the same key a second time: %v", err)
		}
	}
}

// nonceAdoptions has both ways in which the ends of a lane can differ when its session is lost in a ratchet.
func nonceAdoptions(t *testing.T) {
	exporter := &keyschedule.Exporter{9}
	t.Run("answer lost", func(t *testing.T) {
		// The server has epoch 1 ready, the client has not; both go on from epoch 0 to another epoch 1.
		e := newEnd(newLedger(t), aead.AES128GCM, 0, keyschedule.Server, newChain(t))
		confirm, err := NewOpener(OpenerConfig{Keys: Keys{0, e.onlyKey()}, Header: e.header})
		if err != nil {
			t.Fatal(err)
		}
		e.mustSend(e.sealer, 100)
		lost := e.derive(step(t, e.chain, nil))
		if err := errors.Join(e.sealer.InstallAfter(lost, confirm), e.opener.Install(lost)); err != nil {
			t.Fatal(err)
		}
		e.sealer.Begin()
		e.mustSend(e.sealer, 100)
		if !e.sealer.Withdraw() {
			t.Fatal("nothing to withdraw")
		}
		e.chain = step(t, e.chain, exporter)
		fresh := e.derive(e.chain)
		if err := errors.Join(e.opener.Keep(0, 0), e.opener.Install(fresh), e.sealer.Install(fresh)); err != nil {
			t.Fatal(err)
		}
		e.sealer.Begin()
		e.mustSend(e.sealer, 100)
		if e.sealer.Epoch() != 1 || e.sealer.NextNumber() != 300 {
			t.Fatalf("epoch %d, next number %d", e.sealer.Epoch(), e.sealer.NextNumber())
		}
	})
	t.Run("first packet lost", func(t *testing.T) {
		// Both have epoch 1 and no packet of it came through; both go on from it to epoch 2.
		e := newEnd(newLedger(t), aead.ChaCha20Poly1305, 0, keyschedule.Client, newChain(t))
		e.mustSend(e.sealer, 100)
		e.chain = step(t, e.chain, nil)
		keys := e.derive(e.chain)
		if err := errors.Join(e.sealer.Install(keys), e.opener.Install(keys), e.opener.Keep(1, 0)); err != nil {
			t.Fatal(err)
		}
		e.sealer.Begin()
		e.mustSend(e.sealer, 100)
		e.chain = step(t, e.chain, exporter)
		keys = e.derive(e.chain)
		if err := errors.Join(e.sealer.Install(keys), e.opener.Install(keys)); err != nil {
			t.Fatal(err)
		}
		e.sealer.Begin()
		e.mustSend(e.sealer, 100)
	})
	t.Run("the exporter counts", func(t *testing.T) {
		// The same messages and secrets over two new sessions make two keys.
		l, chain, shared := newLedger(t), newChain(t), newShared(t)
		for _, x := range []*keyschedule.Exporter{nil, {}, {1}, {2}} {
			next, err := chain.Next(keyschedule.Step{Shared: shared, Adopting: x})
			if err != nil {
				t.Fatal(err)
			}
			k, err := next.PacketKey(0, keyschedule.Client, aead.AES256GCM)
			if err != nil {
				t.Fatal(err)
			}
			l.add(k)
		}
	})
}

func (e *end) handover(from *Sealer) *Sealer {
	e.t.Helper()
	state := from.Export()
	if e.send(from, 1) != 0 {
		e.t.Fatal("an exported sealer seals")
	}
	var keys Keys
	for _, k := range e.keys { // the one that the sealer has, told by its IV
		iv := k.IV()
		if [4]byte(iv[:]) == [4]byte(from.nonce[:]) && binary.BigEndian.Uint64(iv[4:]) == from.ivTail {
			keys = Keys{state.Epoch, k}
		}
	}
	return e.start(SealerConfig{
		Keys: keys, FirstNumber: state.NextNumber + HandoverSkip, KeyFirstNumber: state.KeyFirstNumber,
	})
}

func nonceHandovers(t *testing.T) {
	for _, suite := range allSuitesTested {
		t.Run(suite.String(), func(t *testing.T) {
			e := newEnd(newLedger(t), suite, 0, keyschedule.Client, newChain(t))
			e.mustSend(e.sealer, 100)
			second := e.handover(e.sealer)
			e.mustSend(second, 100)
			if e.send(e.sealer, 1) != 0 {
				t.Fatal("the first process still seals")
			}
			// A third process fails, even after it has sealed what it must not have; the second goes on.
			third := e.handover(second)
			e.mustSend(third, 500)
			second.Fallback()
			e.mustSend(second, 500)
			// And again, with a ratchet between export and fallback that the second process does not see until then.
			fourth := e.handover(second)
			e.mustSend(fourth, 100)
			e.chain = step(t, e.chain, nil)
			keys := e.derive(e.chain)
			if err := errors.Join(e.opener.Install(keys), second.Install(keys)); err != nil {
				t.Fatal(err)
			}
			second.Begin()
			if e.send(second, 1) != 0 {
				t.Fatal("a ratchet undid an export")
			}
			second.Fallback()
			e.mustSend(second, 100)
			second.Begin()
			e.mustSend(second, 100)
			if second.Epoch() != 1 {
				t.Fatal("the ratchet was lost")
			}
		})
	}
}

func nonceLimits(t *testing.T) {
	for _, tt := range []struct {
		name            string
		first, keyFirst uint64
		want            int
	}{
		{"key", 1<<26 - 10, 0, 10},
		{"key after a ratchet", 1<<26 + 90, 100, 10},
		{"numbers", NumberLimit - 10, NumberLimit - 10, 10},
		{"numbers, with key to spare", NumberLimit - 10, NumberLimit - 1<<25, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEnd(newLedger(t), aead.AES256GCM, 0, keyschedule.Client, newChain(t))
			s := e.start(SealerConfig{Keys: Keys{0, e.onlyKey()}, FirstNumber: tt.first, KeyFirstNumber: tt.keyFirst})
			e.opener.window.next = tt.first
			if got := e.send(s, tt.want+100); got != tt.want {
				t.Fatalf("sealed %d packets, want %d", got, tt.want)
			}
			s.Export()
			s.Fallback()
			if got := e.send(s, 100); got != 0 {
				t.Fatalf("a fallback let %d more through", got)
			}
		})
	}
}

// nonceSchedules mixes everything at random.
func nonceSchedules(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 3))
			e := newEnd(newLedger(t), allSuitesTested[seed%3], uint8(seed), keyschedule.Client, newChain(t))
			s, exporter := e.sealer, &keyschedule.Exporter{byte(seed)}
			var stopped *Sealer
			for range 60 {
				switch random.IntN(6) {
				case 0, 1:
					e.send(s, random.IntN(20))
				case 2: // a ratchet, sometimes after an adoption, sometimes not taken at once
					var adopting *keyschedule.Exporter
					if random.IntN(3) == 0 {
						adopting = exporter
					}
					next := step(t, e.chain, adopting)
					if s.Install(e.derive(next)) == nil && random.IntN(2) == 0 {
						s.Begin()
						e.chain = next
					}
				case 3:
					s.Withdraw()
				case 4:
					s.Withdraw()
					stopped, s = s, e.handover(s)
				case 5:
					if stopped != nil && stopped.Epoch() == s.Epoch() {
						e.send(stopped, 3)
						s.Export()
						stopped.Fallback()
						stopped, s = nil, stopped
					}
				}
			}
		})
	}
}

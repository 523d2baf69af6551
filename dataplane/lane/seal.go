package lane

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
)

// SealerConfig says where a sealer starts.
type SealerConfig struct {
	// Keys are those of the first epoch.
	Keys Keys
	// Header is the header protection key of the lane and direction, for the lane's whole life.
	Header *aead.HeaderKey
	// ID is the destination connection ID, chosen by the other end.
	ID ConnectionID
	// MaxPacketBytes is the longest packet that will be sealed; longer ones are refused. Past 2048 the key's limit is
	// lower, see [aead.PacketLimit].
	MaxPacketBytes int
	// FirstNumber is the first packet number: 0 for a new lane, after a hand-over [SealerState.NextNumber] +
	// [HandoverSkip].
	FirstNumber uint64
	// KeyFirstNumber is the number at which the key was first used, not above FirstNumber: 0 for a new lane, after a
	// hand-over [SealerState.KeyFirstNumber]. The key's limit counts from it.
	KeyFirstNumber uint64
}

// Sealer protects the packets of one direction of one lane. All methods belong to one goroutine at a time, save
// [Sealer.Install], [Sealer.InstallAfter] and [Sealer.Withdraw].
type Sealer struct {
	// Owned by the sealing goroutine.
	aead       cipher.AEAD
	header     *aead.HeaderKey
	next       uint64 // number of the next packet
	stop       uint64 // first number that must not be used with this key; 0 once exported
	ivTail     uint64 // last 8 bytes of the IV
	room       int    // longest frames
	nonce      [aead.NonceBytes]byte
	first      byte // first byte before header protection
	id         ConnectionID
	mask       [aead.MaskBytes]byte
	keyFirst   uint64
	keyPackets uint64 // how many numbers one key may use
	exported   bool

	mu      sync.Mutex                  // orders Install against take; never held per packet
	epoch   uint32                      // written by the sealing goroutine under mu
	pending atomic.Pointer[pendingKeys] // stored under mu
}

type pendingKeys struct {
	keys  Keys
	after *Opener // nil, or wait until it is at the keys' epoch
}

// NewSealer makes a sealer. Errors: [ErrKeySuite], [ErrNumber], [ErrPacketSize].
func NewSealer(cfg SealerConfig) (*Sealer, error) {
	if !cfg.Keys.fits(cfg.Header) {
		return nil, fmt.Errorf("new sealer: %w", ErrKeySuite)
	}
	if cfg.FirstNumber >= NumberLimit || cfg.KeyFirstNumber > cfg.FirstNumber {
		return nil, fmt.Errorf("new sealer: %w", ErrNumber)
	}
	if cfg.MaxPacketBytes < MinPacketBytes {
		return nil, fmt.Errorf("new sealer: %w: %d bytes", ErrPacketSize, cfg.MaxPacketBytes)
	}
	s := &Sealer{
		header:     cfg.Header,
		next:       cfg.FirstNumber,
		room:       cfg.MaxPacketBytes - OverheadBytes,
		id:         cfg.ID,
		keyPackets: aead.PacketLimit(cfg.MaxPacketBytes),
	}
	s.use(cfg.Keys, cfg.KeyFirstNumber)
	return s, nil
}

// use starts sealing with keys, whose packets are counted from keyFirst.
func (s *Sealer) use(keys Keys, keyFirst uint64) {
	iv := keys.Key.IV()
	s.aead = keys.Key.AEAD()
	copy(s.nonce[:], iv[:])
	s.ivTail = binary.BigEndian.Uint64(iv[4:])
	s.first = fixedBit | phaseBit(keys.Epoch) | fourByteNumber
	s.epoch = keys.Epoch
	s.keyFirst = keyFirst
	s.stop = min(keyFirst+s.keyPackets, NumberLimit)
}

// Begin starts a batch of packets: keys that were installed since the last one take effect. It costs one atomic load.
func (s *Sealer) Begin() {
	if s.pending.Load() != nil {
		s.take()
	}
}

func (s *Sealer) take() {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pending.Load()
	if p == nil || s.exported {
		return
	}
	if p.after != nil {
		if epoch, _ := p.after.Epoch(); epoch < p.keys.Epoch {
			return
		}
	}
	s.pending.Store(nil)
	s.use(p.keys, s.next)
}

// Seal writes header, protected frames and tag to out and returns the packet's length, [OverheadBytes] more than
// frames. frames is the plaintext; out must not overlap it and must have room for the packet, and what lies behind the
// packet in out stays as it is. On any other verdict than [VerdictOK] no number is used, out is not touched, and the
// length is 0. Verdicts: [VerdictOK], [VerdictSize], [VerdictKeyLimit], [VerdictNumbersUsed], [VerdictExported].
func (s *Sealer) Seal(out, frames []byte) (int, Verdict) {
	n := OverheadBytes + len(frames)
	if s.next >= s.stop || uint(len(frames)-1) >= uint(s.room) || len(out) < n {
		return 0, s.refusal()
	}
	number := s.next
	s.next++
	header := out[:HeaderBytes]
	header[0] = s.first
	*(*ConnectionID)(header[1:]) = s.id
	binary.BigEndian.PutUint32(header[numberOffset:], uint32(number))
	binary.BigEndian.PutUint64(s.nonce[4:], s.ivTail^number)
	s.aead.Seal(out[HeaderBytes:HeaderBytes:n], s.nonce[:], frames, header)

	// The sample starts four bytes after the start of the packet number (RFC 9001 section 5.4.2), which is where the
	// encrypted frames start.
	s.header.Mask(&s.mask, (*[aead.SampleBytes]byte)(out[HeaderBytes:n]))
	header[0] ^= s.mask[0] & protectedBits
	binary.BigEndian.PutUint32(header[numberOffset:], uint32(number)^binary.BigEndian.Uint32(s.mask[1:]))
	return n, VerdictOK
}

func (s *Sealer) refusal() Verdict {
	switch {
	case s.exported:
		return VerdictExported
	case s.next >= NumberLimit:
		return VerdictNumbersUsed
	case s.next >= s.stop:
		return VerdictKeyLimit
	}
	return VerdictSize
}

// Install hands over the keys of a later epoch than the one in use; the next [Sealer.Begin] takes them, and the counter
// goes on. Keys that were handed over before and not taken yet are replaced. Any goroutine may call it. Errors:
// [ErrKeyEpoch], [ErrKeySuite].
func (s *Sealer) Install(keys Keys) error { return s.install(&pendingKeys{keys: keys}) }

// InstallAfter is like Install, but the keys wait until o has come to their epoch: a server seals with a new epoch once
// it has opened a packet of it, with nobody else's help.
func (s *Sealer) InstallAfter(keys Keys, o *Opener) error {
	return s.install(&pendingKeys{keys: keys, after: o})
}

func (s *Sealer) install(p *pendingKeys) error {
	if !p.keys.fits(s.header) {
		return fmt.Errorf("install sealing keys: %w", ErrKeySuite)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.keys.Epoch <= s.epoch {
		return fmt.Errorf("install sealing keys: %w: %d after %d", ErrKeyEpoch, p.keys.Epoch, s.epoch)
	}
	s.pending.Store(p)
	return nil
}

// Withdraw takes back keys that were installed and not taken yet, and reports whether there were any. Any goroutine may
// call it.
func (s *Sealer) Withdraw() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending.Swap(nil) != nil
}

// SetID changes the destination connection ID, for packets sealed from now on.
func (s *Sealer) SetID(id ConnectionID) { s.id = id }

// Epoch returns the epoch in use.
func (s *Sealer) Epoch() uint32 { return s.epoch }

// NextNumber returns the number that the next packet will have.
func (s *Sealer) NextNumber() uint64 { return s.next }

// KeyPackets returns how many packet numbers the key in use has seen: what decides when to ratchet.
func (s *Sealer) KeyPackets() uint64 { return s.next - s.keyFirst }

// SealerState is what another process needs, besides the secrets, to go on where a sealer stopped.
type SealerState struct {
	Epoch          uint32
	ID             ConnectionID
	NextNumber     uint64
	KeyFirstNumber uint64
}

// Export returns the sealer's state and makes it refuse every further packet with [VerdictExported], so that two
// processes never seal with one number. Keys handed over and not taken yet are not in it.
func (s *Sealer) Export() SealerState {
	s.exported, s.stop = true, 0
	return SealerState{Epoch: s.epoch, ID: s.id, NextNumber: s.next, KeyFirstNumber: s.keyFirst}
}

// Fallback makes an exported sealer work again, [FallbackSkip] numbers on, because the process that was to take over
// has failed before it sealed a packet. On a sealer that was not exported it does nothing.
func (s *Sealer) Fallback() {
	if !s.exported {
		return
	}
	s.exported = false
	s.next = min(s.next+FallbackSkip, NumberLimit)
	s.stop = min(s.keyFirst+s.keyPackets, NumberLimit)
}

// Format implements [fmt.Formatter], so that no verb prints what is inside.
func (*Sealer) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, redacted) }

package lane

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
)

// OpenerConfig says where an opener starts.
type OpenerConfig struct {
	// Keys are those of the first epoch.
	Keys Keys
	// Header is the header protection key of the lane and direction, for the lane's whole life.
	Header *aead.HeaderKey
	// Resume is nil for a new lane, after a hand-over what the other process exported.
	Resume *OpenerState
}

// OpenerState is what another process needs, besides the secrets, to go on where an opener stopped.
type OpenerState struct {
	// Epoch is the one that packets were opened with. Keys of the one before are not handed over.
	Epoch      uint32
	NextNumber uint64
	// Window is the replay window, a ring: the bit of packet n is bit n mod 64 of word n / 64 mod its length.
	Window [windowWords]uint64
	Stats  OpenerStats
}

// Opener opens the packets of one direction of one lane. All methods belong to one goroutine at a time, save
// [Opener.Install], [Opener.Keep], [Opener.Expire] and [Opener.Epoch].
type Opener struct {
	// Owned by the opening goroutine.
	header *aead.HeaderKey
	nonce  [aead.NonceBytes]byte
	mask   [aead.MaskBytes]byte
	closed bool
	window window
	stats  OpenerStats

	keys atomic.Pointer[keySet] // the set is never written once stored
}

// OpenerStats counts what an opener has done with packets since it was made. Only authentic packets change anything
// but Verdicts.
type OpenerStats struct {
	// Verdicts counts the packets of each verdict; that of [VerdictOK] is the number of packets received.
	Verdicts [Verdicts]uint64
	// Reordered counts those received that came after one with a higher number.
	Reordered uint64
	// ECN counts what [Opener.CountECN] was told, by codepoint (RFC 3168 section 5): 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.
	ECN [4]uint64
	// FirstNanos and HighestNanos are when the first packet, and the one with the highest number, came.
	FirstNanos, HighestNanos int64
}

// NewOpener makes an opener. Errors: [ErrKeySuite]; [ErrKeyEpoch] and [ErrNumber] for a state to resume that does not
// belong to the keys, or cannot be.
func NewOpener(cfg OpenerConfig) (*Opener, error) {
	if !cfg.Keys.fits(cfg.Header) {
		return nil, fmt.Errorf("new opener: %w", ErrKeySuite)
	}
	o := &Opener{header: cfg.Header}
	if r := cfg.Resume; r != nil {
		if r.Epoch != cfg.Keys.Epoch {
			return nil, fmt.Errorf("new opener: %w: state of %d, key of %d", ErrKeyEpoch, r.Epoch, cfg.Keys.Epoch)
		}
		if r.NextNumber > NumberLimit {
			return nil, fmt.Errorf("new opener: %w", ErrNumber)
		}
		o.window, o.stats = window{r.NextNumber, r.Window}, r.Stats
	}
	o.keys.Store(&keySet{current: newOpenKey(cfg.Keys), first: noneOpened})
	return o, nil
}

// Export returns the opener's state. Whoever exports opens no further packet: one opened by two processes would be
// delivered twice.
func (o *Opener) Export() OpenerState {
	epoch, _ := o.Epoch()
	return OpenerState{Epoch: epoch, NextNumber: o.window.next, Window: o.window.ring, Stats: o.stats}
}

// Open opens a packet in place: frames lie in datagram, [HeaderBytes] from its start. number is the packet's full
// number, valid with [VerdictOK], [VerdictReplayed], [VerdictOld] and [VerdictReserved]. Unless the verdict is
// [VerdictOK] frames is nil, nothing but counters has changed, and datagram's content is spoilt, except for
// [VerdictForm] and for its last 16 bytes, where a stateless reset has its token.
//
// All checks wait for authentication (RFC 9001 section 9.5): were replays turned away before it, the time that takes
// would tell what is under the header protection.
func (o *Opener) Open(datagram []byte, nowNanos int64) (frames []byte, number uint64, verdict Verdict) {
	if len(datagram) < MinPacketBytes || datagram[0]&(longHeaderBit|fixedBit) != fixedBit || o.closed {
		return nil, 0, o.refusal()
	}
	header := datagram[:HeaderBytes]
	o.header.Mask(&o.mask, (*[aead.SampleBytes]byte)(datagram[HeaderBytes:]))
	header[0] ^= o.mask[0] & protectedBits
	low := binary.BigEndian.Uint32(header[numberOffset:]) ^ binary.BigEndian.Uint32(o.mask[1:])
	binary.BigEndian.PutUint32(header[numberOffset:], low)
	number = reconstruct(o.window.next, low)

	set := o.keys.Load()
	key, held := set.current, true
	if header[0]&(1<<phaseShift) != phaseBit(key.epoch) {
		key, held = set.other(number, nowNanos)
	}
	binary.BigEndian.PutUint32(o.nonce[:], key.ivHead)
	binary.BigEndian.PutUint64(o.nonce[4:], key.ivTail^number)
	frames, err := key.aead.Open(datagram[HeaderBytes:HeaderBytes], o.nonce[:], datagram[HeaderBytes:], header)
	if err != nil || !held {
		return nil, 0, o.failed(key, held)
	}
	if header[0]&(reservedBits|numberLengthBits) != fourByteNumber {
		return nil, number, o.count(VerdictReserved)
	}
	highest := number >= o.window.next
	if verdict = o.window.accept(number); verdict != VerdictOK {
		return nil, number, o.count(verdict)
	}
	o.arrived(highest, nowNanos)
	if key != set.current || set.first == noneOpened {
		o.opened(key, number, nowNanos)
	}
	return frames, number, VerdictOK
}

func (o *Opener) arrived(highest bool, nowNanos int64) {
	if o.stats.Verdicts[VerdictOK] == 0 {
		o.stats.FirstNanos = nowNanos
	}
	o.stats.Verdicts[VerdictOK]++
	if highest {
		o.stats.HighestNanos = nowNanos
	} else {
		o.stats.Reordered++
	}
}

func (o *Opener) refusal() Verdict {
	if o.closed {
		return o.count(VerdictClosed)
	}
	return o.count(VerdictForm)
}

func (o *Opener) failed(key *openKey, held bool) Verdict {
	key.failed++
	switch {
	case key.failed >= aead.MaxFailedOpens:
		o.closed = true
		return o.count(VerdictClosed)
	case !held:
		return o.count(VerdictNoKey)
	}
	return o.count(VerdictForged)
}

func (o *Opener) count(v Verdict) Verdict {
	o.stats.Verdicts[v]++
	return v
}

// CountECN notes the ECN field (the low two bits of ecn) that the packet just opened came with.
func (o *Opener) CountECN(ecn uint8) { o.stats.ECN[ecn&3]++ }

// Stats returns the counters, which stay the opener's: the caller reads them on the opening goroutine.
func (o *Opener) Stats() *OpenerStats { return &o.stats }

// NextNumber returns one more than the highest number opened, 0 if there is none.
func (o *Opener) NextNumber() uint64 { return o.window.next }

// Report says how the packets so far have arrived, for a report frame to be sent at nowNanos. Before the first packet
// there is nothing to report.
func (o *Opener) Report(nowNanos int64) (r Report, ok bool) {
	if o.window.next == 0 {
		return Report{}, false
	}
	const nanosPerMicro = 1000
	s := &o.stats
	return Report{
		Highest:       o.window.next - 1,
		Received:      s.Verdicts[VerdictOK],
		Reordered:     s.Reordered,
		Duplicates:    s.Verdicts[VerdictReplayed],
		ECT0:          s.ECN[2],
		ECT1:          s.ECN[1],
		CE:            s.ECN[3],
		DelayMicros:   uint64(max(nowNanos-s.HighestNanos, 0)) / nanosPerMicro,
		ArrivalMicros: uint64(max(s.HighestNanos-s.FirstNanos, 0)) / nanosPerMicro,
	}, true
}

// Format implements [fmt.Formatter], so that no verb prints what is inside.
func (*Opener) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, redacted) }

// openKey is the key of one epoch.
type openKey struct {
	aead   cipher.AEAD
	ivHead uint32
	ivTail uint64
	epoch  uint32
	failed uint64 // packets that did not open; owned by the opening goroutine
}

func newOpenKey(keys Keys) *openKey {
	iv := keys.Key.IV()
	return &openKey{
		aead:   keys.Key.AEAD(),
		ivHead: binary.BigEndian.Uint32(iv[:]),
		ivTail: binary.BigEndian.Uint64(iv[4:]),
		epoch:  keys.Epoch,
	}
}

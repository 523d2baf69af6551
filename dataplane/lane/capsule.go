package lane

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Kind is the first byte of a lane capsule's payload.
type Kind uint8

// The messages of a lane capsule. A receiver ignores a kind that it does not know.
const (
	KindOffer          Kind = 1
	KindAccept         Kind = 2
	KindRefusal        Kind = 3
	KindRatchetRequest Kind = 4
	KindRatchetAnswer  Kind = 5
	KindAdoptRequest   Kind = 6
	KindAdoptAnswer    Kind = 7
	KindClose          Kind = 8
)

// String names the kind for log lines.
func (k Kind) String() string {
	names := [...]string{
		"unknown", "offer", "accept", "refusal", "ratchet request", "ratchet answer", "adopt request", "adopt answer",
		"close",
	}
	if int(k) >= len(names) {
		return names[0]
	}
	return names[k]
}

// Bounds of the messages.
const (
	// MaxLaneNumber is the highest number of a lane; lane 0 uses the session's own 4-tuple.
	MaxLaneNumber = 15
	// IDBytes is the length of a [ID] and of an [OfferID] in bytes.
	IDBytes = 16
	// ConnectionIDs is how many connection IDs each side keeps issued.
	ConnectionIDs = 4
	// MaxQuarterStreamID keeps the quarter stream ID of a DATAGRAM frame one byte long.
	MaxQuarterStreamID = 63
	// MinMaxPacketBytes is the least a receiver may say it takes: QUIC's own least.
	MinMaxPacketBytes = 1200
	// MaxMaxPacketBytes is the longest UDP payload of IPv4.
	MaxMaxPacketBytes = 65507
	// MaxSuites bounds the list of suites of an offer.
	MaxSuites = 8
	// MaxContexts bounds the list of contexts of one side: each of the even or odd numbers of one byte varint.
	MaxContexts = 31
	// MaxMessageBytes is the longest message. The longest that this revision has takes 1,389 bytes.
	MaxMessageBytes = 2048
)

// Errors of [Parse] and [Peek].
var (
	// ErrMalformed says that a message breaks the format. It comes over an authenticated session, from a broken
	// peer: end the session.
	ErrMalformed = errors.New("malformed lane message")
	// ErrUnknownKind says that a message is of a kind from a later revision: ignore it.
	ErrUnknownKind = errors.New("lane message of unknown kind")
)

// ID names a lane for as long as it lives, whatever session it is bound to: the first 16 bytes of SHA-256 of
// the transcript. It is public.
type ID [IDBytes]byte

// OfferID names an offer: the first 16 bytes of SHA-256 of its message. It is public.
type OfferID [IDBytes]byte

// Header is what every message begins with.
type Header struct {
	Kind Kind
	// Number is the lane's number, 0 to [MaxLaneNumber].
	Number uint8
	// ID is the [OfferID] in an accept and in a refusal, nothing in an offer, and the [ID] in all others.
	ID [IDBytes]byte
}

// Message is one of [Offer], [Accept], [Refusal], [RatchetRequest], [RatchetAnswer], [AdoptRequest], [AdoptAnswer]
// and [Close], each by pointer.
type Message interface {
	// Append appends the message. What [Parse] returned gives the same bytes again.
	Append(dst []byte) []byte
}

// Peek reads the header of a message, which says whose it is. The errors are those of [Parse].
func Peek(payload []byte) (Header, error) {
	if len(payload) > 0 && len(payload) <= MaxMessageBytes && (payload[0] == 0 || Kind(payload[0]) > KindClose) {
		return Header{}, ErrUnknownKind // whatever its form
	}
	d := decoder{rest: payload}
	h := d.header()
	if d.bad || len(payload) > MaxMessageBytes {
		return Header{}, fmt.Errorf("header of %d bytes: %w", len(payload), ErrMalformed)
	}
	if h.Number > MaxLaneNumber {
		return Header{}, fmt.Errorf("lane number %d: %w", h.Number, ErrMalformed)
	}
	return h, nil
}

// Parse reads the payload of a lane capsule. The result shares no memory with it. An error wraps [ErrMalformed] or
// [ErrUnknownKind].
func Parse(payload []byte) (Message, error) {
	h, err := Peek(payload)
	if err != nil {
		return nil, err
	}
	d := decoder{rest: payload}
	d.header()
	var m Message
	switch h.Kind {
	case KindOffer:
		m = d.offer(h)
	case KindAccept:
		m = d.accept(h)
	case KindRefusal:
		m = &Refusal{Number: h.Number, Offer: h.ID, Reason: Reason(d.u16())}
	case KindRatchetRequest:
		m = d.ratchetRequest(h)
	case KindRatchetAnswer:
		m = d.ratchetAnswer(h)
	case KindAdoptRequest:
		m = d.adoptRequest(h)
	case KindAdoptAnswer:
		m = d.adoptAnswer(h)
	case KindClose:
		m = &Close{Number: h.Number, Lane: h.ID, Reason: Reason(d.u16())}
	}
	if d.bad || len(d.rest) != 0 {
		return nil, fmt.Errorf("%v of %d bytes: %w", h.Kind, len(payload), ErrMalformed)
	}
	return m, nil
}

// decoder reads a message from its beginning. After a fault bad is set and every value is zero.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.rest) < n {
		d.bad = true
		return nil
	}
	out := d.rest[:n]
	d.rest = d.rest[n:]
	return out
}

// fill copies the next len(dst) bytes.
func (d *decoder) fill(dst []byte) { copy(dst, d.take(len(dst))) }

func (d *decoder) u8() uint8 {
	var b [1]byte
	d.fill(b[:])
	return b[0]
}

func (d *decoder) u16() uint16 {
	var b [2]byte
	d.fill(b[:])
	return binary.BigEndian.Uint16(b[:])
}

func (d *decoder) u32() uint32 {
	var b [4]byte
	d.fill(b[:])
	return binary.BigEndian.Uint32(b[:])
}

// count reads the length of a list and refuses one out of bounds, before anything is allocated for it.
func (d *decoder) count(least, most int) int {
	n := int(d.u8())
	d.check(n >= least && n <= most)
	if d.bad {
		return 0
	}
	return n
}

// check marks the message as malformed unless ok.
func (d *decoder) check(ok bool) {
	if !ok {
		d.bad = true
	}
}

func (d *decoder) header() Header {
	h := Header{Kind: Kind(d.u8()), Number: d.u8()}
	if h.Kind != KindOffer {
		d.fill(h.ID[:])
	}
	return h
}

// appendHeader appends the header; an offer has no ID.
func appendHeader(dst []byte, kind Kind, number uint8, id [IDBytes]byte) []byte {
	dst = append(dst, byte(kind), number)
	if kind == KindOffer {
		return dst
	}
	return append(dst, id[:]...)
}

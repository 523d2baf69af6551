package aead

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/crypto/chacha20"
)

const redacted = "[redacted]"

// PacketKey is the key and IV of one epoch, lane and direction, ready for use. It prints as "[redacted]" and has no
// text or JSON form. It is immutable and safe for concurrent use.
//
// The expanded key belongs to the standard library, which offers no way to overwrite it: a key is forgotten by
// dropping every reference to its PacketKey.
type PacketKey struct {
	// By pointer, because package fmt cannot call Format on what lies in an unexported field of somebody's struct and
	// follows one pointer there, not a second one.
	iv    *[NonceBytes]byte
	aead  cipher.AEAD
	suite Suite
}

// NewPacketKey makes a PacketKey from s.KeyBytes() bytes of key and [NonceBytes] bytes of IV, both of which it copies.
// Errors: [ErrSuite], [ErrKeySize].
func (s Suite) NewPacketKey(key, iv []byte) (*PacketKey, error) {
	a, err := s.New(key)
	if err != nil {
		return nil, err
	}
	if len(iv) != NonceBytes {
		return nil, fmt.Errorf("%w: IV of %d bytes", ErrKeySize, len(iv))
	}
	return &PacketKey{aead: a, iv: (*[NonceBytes]byte)(bytes.Clone(iv)), suite: s}, nil
}

// Suite returns the suite the key is for.
func (k *PacketKey) Suite() Suite { return k.suite }

// AEAD returns the keyed cipher.
func (k *PacketKey) AEAD() cipher.AEAD { return k.aead }

// IV returns what a packet number is XORed into to make a nonce (RFC 9001 section 5.3).
func (k *PacketKey) IV() [NonceBytes]byte { return *k.iv }

// Format implements [fmt.Formatter], so that no verb prints the key.
func (*PacketKey) Format(state fmt.State, _ rune) { redact(state) }

// LogValue implements [slog.LogValuer] with "[redacted]".
func (*PacketKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText writes "[redacted]", which also keeps the key out of JSON.
func (*PacketKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Sizes of header protection, in bytes (RFC 9001 section 5.4).
const (
	// SampleBytes is how much ciphertext a mask is made from.
	SampleBytes = 16
	// MaskBytes is the size of the mask that [HeaderKey.Mask] writes. Only the first five bytes protect anything.
	MaskBytes = 16
)

// HeaderKey makes header protection masks for one lane and direction. It prints as "[redacted]" and has no text or
// JSON form. It is immutable and safe for concurrent use.
type HeaderKey struct {
	block  cipher.Block // AES suites
	chacha *chachaKey   // ChaCha20-Poly1305; by pointer for the same reason as PacketKey.iv
	suite  Suite
}

type chachaKey [chacha20.KeySize]byte

// NewHeaderKey makes a HeaderKey from s.KeyBytes() bytes of key, which it copies. Errors: [ErrSuite], [ErrKeySize].
func (s Suite) NewHeaderKey(key []byte) (*HeaderKey, error) {
	if err := s.checkKey(key); err != nil {
		return nil, err
	}
	h := &HeaderKey{suite: s}
	if s == ChaCha20Poly1305 {
		h.chacha = (*chachaKey)(bytes.Clone(key))
		return h, nil
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	h.block = block
	return h, nil
}

// Suite returns the suite the key is for.
func (h *HeaderKey) Suite() Suite { return h.suite }

// Mask writes the mask for sample to mask: AES of the sample (RFC 9001 section 5.4.3), or the start of the ChaCha20
// key stream that the sample's counter and nonce select (section 5.4.4). Both arguments escape to the heap; they must
// overlap entirely or not at all. It does not allocate.
func (h *HeaderKey) Mask(mask *[MaskBytes]byte, sample *[SampleBytes]byte) {
	if h.block != nil {
		h.block.Encrypt(mask[:], sample[:])
		return
	}
	chachaMask(mask, h.chacha, sample)
}

func chachaMask(mask *[MaskBytes]byte, key *chachaKey, sample *[SampleBytes]byte) {
	c, err := chacha20.NewUnauthenticatedCipher(key[:], sample[4:])
	if err != nil {
		panic("aead: a ChaCha20 key or nonce of fixed size was refused: " + err.Error())
	}
	c.SetCounter(binary.LittleEndian.Uint32(sample[:4]))
	clear(mask[:])
	c.XORKeyStream(mask[:5], mask[:5])
}

// Format implements [fmt.Formatter], so that no verb prints the key.
func (*HeaderKey) Format(state fmt.State, _ rune) { redact(state) }

// LogValue implements [slog.LogValuer] with "[redacted]".
func (*HeaderKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText writes "[redacted]", which also keeps the key out of JSON.
func (*HeaderKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func redact(state fmt.State) {
	// A formatter has nowhere to report a failing writer; fmt itself ignores it in the same place.
	_, _ = io.WriteString(state, redacted)
}

package aead

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Sizes shared by all suites, in bytes.
const (
	NonceBytes = 12
	TagBytes   = 16
	// MaxKeyBytes is the longest key any suite takes.
	MaxKeyBytes = 32
)

// Suite names a cipher suite by its number on the wire.
type Suite uint8

// The suites. Zero is none, so that a forgotten field is refused.
const (
	AES256GCM        Suite = 1
	AES128GCM        Suite = 2
	ChaCha20Poly1305 Suite = 3
)

var (
	// ErrSuite means a number that stands for no suite.
	ErrSuite = errors.New("unknown cipher suite")
	// ErrKeySize means a key or IV whose length the suite does not take.
	ErrKeySize = errors.New("key of the wrong length")
)

// Valid reports whether s is one of the suites above.
func (s Suite) Valid() bool { return s >= AES256GCM && s <= ChaCha20Poly1305 }

// String returns the suite's usual name.
func (s Suite) String() string {
	switch s {
	case AES256GCM:
		return "AES-256-GCM"
	case AES128GCM:
		return "AES-128-GCM"
	case ChaCha20Poly1305:
		return "ChaCha20-Poly1305"
	}
	return fmt.Sprintf("suite %d", uint8(s))
}

// KeyBytes is the length of the suite's packet key, and of its header protection key. It is 0 for an unknown suite.
func (s Suite) KeyBytes() int {
	switch s {
	case AES256GCM, ChaCha20Poly1305:
		return 32
	case AES128GCM:
		return 16
	}
	return 0
}

// New returns the suite's AEAD over key, with nonces of [NonceBytes] and tags of [TagBytes]. It keeps no reference to
// key. The AEAD is safe for concurrent use and does not allocate where dst has room; nonce and additional data escape
// to the heap, so callers keep them in memory that lives there already. Errors: [ErrSuite], [ErrKeySize].
func (s Suite) New(key []byte) (cipher.AEAD, error) {
	if err := s.checkKey(key); err != nil {
		return nil, err
	}
	if s == ChaCha20Poly1305 {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (s Suite) checkKey(key []byte) error {
	if !s.Valid() {
		return fmt.Errorf("%w %d", ErrSuite, uint8(s))
	}
	if len(key) != s.KeyBytes() {
		return fmt.Errorf("%w: %d bytes for %s", ErrKeySize, len(key), s)
	}
	return nil
}

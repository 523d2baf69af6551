package token

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// SecretSize is the length of a [Secret] in bytes.
const SecretSize = 16

const redacted = "[redacted]"

// Secret is the random part of an invite or bearer token, [SecretSize] bytes. It prints as "[redacted]"
// whatever way it is formatted or logged, and has no text or JSON form. Copies share one secret. The zero
// Secret holds none: it equals nothing and cannot be encoded.
type Secret struct {
	// Package fmt cannot call Format on what lies in an unexported field of somebody's struct, and follows one
	// pointer when it prints such a field under a verb that does not fit. It does not follow a second one.
	box *secretBox
}

type secretBox struct {
	raw *[SecretSize]byte
}

// NewSecret reads a secret from random, which must be a cryptographic source.
func NewSecret(random io.Reader) (Secret, error) {
	var raw [SecretSize]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return Secret{}, fmt.Errorf("make secret: %w", err)
	}
	return Secret{&secretBox{&raw}}, nil
}

func secretOf(raw [SecretSize]byte) Secret { return Secret{&secretBox{&raw}} }

// Hash returns the value under which a gateway remembers the secret. With 128 random bits below it there is
// nothing to guess, so it needs neither salt nor stretching. The hash of a zero Secret is zero, which no
// secret has.
func (s Secret) Hash() [32]byte {
	if s.box == nil {
		return [32]byte{}
	}
	return identity.LabelInviteSecret.Sum(s.box.raw[:])
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.box == nil }

// Equal compares in constant time.
func (s Secret) Equal(other Secret) bool {
	return s.box != nil && other.box != nil && subtle.ConstantTimeCompare(s.box.raw[:], other.box.raw[:]) == 1
}

// Wipe overwrites the secret, in all copies of s.
func (s Secret) Wipe() {
	if s.box != nil {
		clear(s.box.raw[:])
	}
}

// Format implements [fmt.Formatter], so that no verb, flag or nesting prints the secret.
func (s Secret) Format(state fmt.State, _ rune) {
	// A formatter has nowhere to report a failing writer; fmt itself ignores it in the same place.
	_, _ = io.WriteString(state, redacted)
}

// String returns "[redacted]".
func (s Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (s Secret) GoString() string { return redacted }

// LogValue implements [slog.LogValuer] with "[redacted]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText always fails, which also keeps the secret out of JSON.
func (s Secret) MarshalText() ([]byte, error) { return nil, errSecret }

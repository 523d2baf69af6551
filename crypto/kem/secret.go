package kem

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// errNoText keeps secrets out of JSON and other text forms.
var errNoText = errors.New("a secret has no text form")

// Shared is the secret that both ends of an exchange get: the ML-KEM-768 shared key, then the X25519 one. It prints as
// "[redacted]" and has no text or JSON form. Copies share one secret. The zero Shared holds none.
type Shared struct {
	// Package fmt cannot call Format on what lies in an unexported field of somebody's struct, and follows one
	// pointer when it prints such a field under a verb that does not fit. It does not follow a second one.
	box *sharedBox
}

type sharedBox struct{ raw *[SharedBytes]byte }

func newShared(mlkem768, x25519 []byte) Shared {
	raw := new([SharedBytes]byte)
	copy(raw[:], mlkem768)
	copy(raw[mlkemSharedBytes:], x25519)
	return Shared{&sharedBox{raw}}
}

// IsZero reports whether s holds no secret, because it never did or because it was wiped.
func (s Shared) IsZero() bool {
	var zero [SharedBytes]byte
	return s.box == nil || subtle.ConstantTimeCompare(s.box.raw[:], zero[:]) == 1
}

// Append appends the [SharedBytes] bytes of the secret to b; the caller wipes them. A Shared that holds none panics:
// zeros must never become a key.
func (s Shared) Append(b []byte) []byte {
	if s.IsZero() {
		panic("kem: use of an empty or wiped shared secret")
	}
	return append(b, s.box.raw[:]...)
}

// Wipe overwrites the secret, in all copies of s.
func (s Shared) Wipe() {
	if s.box != nil {
		clear(s.box.raw[:])
	}
}

// Format implements [fmt.Formatter], so that no verb, flag or nesting prints the secret.
func (s Shared) Format(state fmt.State, _ rune) { redact(state) }

// String returns "[redacted]".
func (s Shared) String() string { return redacted }

// GoString returns "[redacted]".
func (s Shared) GoString() string { return redacted }

// LogValue implements [slog.LogValuer] with "[redacted]".
func (s Shared) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText always fails, which also keeps the secret out of JSON.
func (s Shared) MarshalText() ([]byte, error) { return nil, errNoText }

// Format implements [fmt.Formatter], so that no verb, flag or nesting prints the key.
func (k *PrivateKey) Format(state fmt.State, _ rune) { redact(state) }

// String returns "[redacted]".
func (k *PrivateKey) String() string { return redacted }

// GoString returns "[redacted]".
func (k *PrivateKey) GoString() string { return redacted }

// LogValue implements [slog.LogValuer] with "[redacted]".
func (k *PrivateKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText always fails, which also keeps the key out of JSON.
func (k *PrivateKey) MarshalText() ([]byte, error) { return nil, errNoText }

func redact(state fmt.State) {
	// A formatter has nowhere to report a failing writer; fmt itself ignores it in the same place.
	_, _ = io.WriteString(state, redacted)
}

package keyschedule

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"

	"github.com/aethertunnel/aethertunnel/crypto/kem"
)

// ExporterLabel is the label of the TLS exporter (RFC 8446 section 7.5) that binds a lane to its session. Its context
// is the SHA-256 of the transcript, its length [SecretBytes].
const ExporterLabel = "EXPORTER-aethertunnel-lane-v1"

// SecretBytes is the length of a chain secret, of a traffic secret, of an exporter value and of an adoption MAC.
const SecretBytes = sha256.Size

const redacted = "[redacted]"

var (
	// ErrWiped means that the chain, or a secret that should go into it, is empty or has been wiped.
	ErrWiped = errors.New("secret was wiped")
	// ErrEpoch means a header protection key asked of a later epoch than 0, or a ratchet past the last epoch.
	ErrEpoch = errors.New("not possible in this epoch")

	errNoText = errors.New("a secret has no text form")
)

// Role says which end of the lane: it stands for the direction that this end seals, too.
type Role uint8

// The roles, by their number in derivations.
const (
	Client Role = 0
	Server Role = 1
)

// Peer returns the other role.
func (r Role) Peer() Role { return r ^ 1 }

// String returns "client" or "server".
func (r Role) String() string {
	switch r {
	case Client:
		return "client"
	case Server:
		return "server"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// Exporter is a session's TLS exporter value. It is a secret and prints as "[redacted]".
type Exporter [SecretBytes]byte

// Format implements [fmt.Formatter], so that no verb prints the value.
func (Exporter) Format(state fmt.State, _ rune) { redact(state) }

// LogValue implements [slog.LogValuer] with "[redacted]".
func (Exporter) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText always fails, which also keeps the value out of JSON.
func (Exporter) MarshalText() ([]byte, error) { return nil, errNoText }

// Chain is the secret of one epoch of a lane, from which all its keys and the next epoch's chain come. It prints as
// "[redacted]" and has no text or JSON form. Methods other than Wipe may run concurrently.
type Chain struct {
	// Package fmt cannot call Format on what lies in an unexported field of somebody's struct, and follows one
	// pointer when it prints such a field under a verb that does not fit. It does not follow a second one.
	secret *[SecretBytes]byte
	epoch  uint32
}

// New makes chain_0. It does not wipe its arguments. The error is [ErrWiped] for an empty shared secret.
func New(exporter *Exporter, shared kem.Shared) (*Chain, error) {
	if shared.IsZero() {
		return nil, ErrWiped
	}
	return extract(exporter[:], shared.Append(make([]byte, 0, kem.SharedBytes)), 0)
}

// Step is what a ratchet mixes into the chain.
type Step struct {
	// Shared is the fresh shared secret. Next does not wipe it.
	Shared kem.Shared
	// Request and Answer are the exact bytes of the two ratchet messages, as the protocol delimits them.
	Request, Answer []byte
	// Adopting is the exporter value of the new session in the first ratchet after an adoption, nil in all others.
	Adopting *Exporter
}

// Next makes the chain of the following epoch and leaves c as it is. Errors: [ErrWiped]; [ErrEpoch] after 2^32 epochs.
func (c *Chain) Next(step Step) (*Chain, error) {
	if c.secret == nil || step.Shared.IsZero() {
		return nil, ErrWiped
	}
	if c.epoch == math.MaxUint32 {
		return nil, ErrEpoch
	}
	return c.next(step.Shared.Append(make([]byte, 0, ratchetInputBytes)), step)
}

// ratchetInputBytes is the longest input of a ratchet's Extract.
const ratchetInputBytes = kem.SharedBytes + sha256.Size + SecretBytes

// next completes input, which holds the shared secret and has room for the rest, and wipes it.
func (c *Chain) next(input []byte, step Step) (*Chain, error) {
	h := sha256.New()
	h.Write(step.Request)
	h.Write(step.Answer)
	input = h.Sum(input)
	if step.Adopting != nil {
		input = append(input, step.Adopting[:]...)
	}
	return extract(c.secret[:], input, c.epoch+1)
}

// extract wipes input.
func extract(salt, input []byte, epoch uint32) (*Chain, error) {
	defer clear(input)
	prk, err := hkdf.Extract(sha256.New, input, salt)
	if err != nil {
		return nil, fmt.Errorf("derive chain: %w", err)
	}
	defer clear(prk)
	secret := [SecretBytes]byte(prk)
	return &Chain{secret: &secret, epoch: epoch}, nil
}

// Epoch returns the chain's epoch.
func (c *Chain) Epoch() uint32 { return c.epoch }

// Wipe overwrites the chain; nothing can be derived from it any more. Keys derived before stay.
func (c *Chain) Wipe() {
	if c.secret == nil {
		return
	}
	clear(c.secret[:])
	c.secret = nil
}

// Format implements [fmt.Formatter], so that no verb, flag or nesting prints the secret.
func (*Chain) Format(state fmt.State, _ rune) { redact(state) }

// String returns "[redacted]".
func (*Chain) String() string { return redacted }

// GoString returns "[redacted]".
func (*Chain) GoString() string { return redacted }

// LogValue implements [slog.LogValuer] with "[redacted]".
func (*Chain) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText always fails, which also keeps the secret out of JSON.
func (*Chain) MarshalText() ([]byte, error) { return nil, errNoText }

func redact(state fmt.State) {
	// A formatter has nowhere to report a failing writer; fmt itself ignores it in the same place.
	_, _ = io.WriteString(state, redacted)
}

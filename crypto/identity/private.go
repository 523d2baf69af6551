package identity

import (
	"crypto"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

const (
	redacted = "[redacted]"

	pemType     = "AETHERTUNNEL NODE KEY"
	formSeeds1  = 1 // first byte of an encoded private key: two seeds and the id they make
	seedsSize   = ed25519.SeedSize + mldsa65.SeedSize
	encodedSize = 1 + seedsSize + IDSize

	// MaxEncodedPrivate bounds the text that [ParsePrivate] looks at, in bytes.
	MaxEncodedPrivate = 4096
)

// Private is a node's pair of private keys. It prints as "[redacted]" whatever way it is formatted or logged,
// and has no JSON form. Signing is safe for concurrent use; [Private.Wipe] is not safe beside it.
type Private struct {
	// Package fmt cannot call Format on what lies in an unexported field of somebody's struct, and follows one
	// pointer when it prints such a field under a verb that does not fit. It does not follow a second one.
	keys   *keyBox
	public Public
}

type keyBox struct {
	*privateKeys
}

type privateKeys struct {
	seeds [seedsSize]byte // Ed25519 seed (RFC 8032 section 5.1.5), ML-DSA seed (FIPS 204 section 3.6.3)
	ed    ed25519.PrivateKey
	mldsa *mldsa65.PrivateKey
	wiped bool
}

// Generate makes a new pair of keys from 64 bytes of random, which must be a cryptographic source.
func Generate(random io.Reader) (*Private, error) {
	var seeds [seedsSize]byte
	defer clear(seeds[:])
	if _, err := io.ReadFull(random, seeds[:]); err != nil {
		return nil, fmt.Errorf("make node keys: %w", err)
	}
	return fromSeeds(&seeds)
}

func fromSeeds(seeds *[seedsSize]byte) (*Private, error) {
	public, mldsa := mldsa65.NewKeyFromSeed((*[mldsa65.SeedSize]byte)(seeds[ed25519.SeedSize:]))
	ed := ed25519.NewKeyFromSeed(seeds[:ed25519.SeedSize])
	p := &Private{keys: &keyBox{&privateKeys{seeds: *seeds, ed: ed, mldsa: mldsa}}}
	var err error
	if p.public, err = NewPublic(ed25519.PublicKey(ed[ed25519.SeedSize:]), public.Bytes()); err != nil {
		p.Wipe()
		return nil, fmt.Errorf("make node keys: %w", err)
	}
	return p, nil
}

// ParsePrivate reads the text that [Private.Encode] writes. It checks the keys against the id stored beside
// them, so that a damaged file is recognised instead of becoming another node. Errors: [ErrMalformed]; none
// of them quotes the text.
func ParsePrivate(text []byte) (*Private, error) {
	if len(text) > MaxEncodedPrivate {
		return nil, fmt.Errorf("node key of %d bytes: %w", len(text), ErrMalformed)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("no %q block: %w", pemType, ErrMalformed)
	}
	defer clear(block.Bytes)
	if len(block.Bytes) != encodedSize || block.Bytes[0] != formSeeds1 {
		return nil, fmt.Errorf("node key of an unknown form: %w", ErrMalformed)
	}
	seeds := [seedsSize]byte(block.Bytes[1 : 1+seedsSize])
	defer clear(seeds[:])
	p, err := fromSeeds(&seeds)
	if err != nil {
		return nil, err
	}
	if p.ID() != ID(block.Bytes[1+seedsSize:]) {
		p.Wipe()
		return nil, fmt.Errorf("node key does not make the id stored with it: %w", ErrMalformed)
	}
	return p, nil
}

// Encode returns the keys as a PEM block, for a file that only the owner can read. The caller wipes the
// result.
func (p *Private) Encode() ([]byte, error) {
	if p.keys.wiped {
		return nil, ErrWiped
	}
	var raw [encodedSize]byte
	defer clear(raw[:])
	raw[0] = formSeeds1
	copy(raw[1:], p.keys.seeds[:])
	id := p.ID()
	copy(raw[1+seedsSize:], id[:])
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: raw[:]}), nil
}

// Public returns the public halves. They stay valid after [Private.Wipe].
func (p *Private) Public() Public { return p.public }

// ID is short for p.Public().ID().
func (p *Private) ID() ID { return p.public.ID() }

// Wipe overwrites the keys. Whatever signs afterwards gets [ErrWiped]. Copies that the Go runtime or the
// signature libraries made on the way are beyond its reach.
func (p *Private) Wipe() {
	p.keys.wiped = true
	clear(p.keys.seeds[:])
	clear(p.keys.ed)
	*p.keys.mldsa = mldsa65.PrivateKey{}
}

// Signer returns the Ed25519 half for TLS and X.509. It signs as long as p is not wiped.
func (p *Private) Signer() crypto.Signer { return &edSigner{p} }

// Format implements [fmt.Formatter], so that no verb, flag or nesting prints a key.
func (p *Private) Format(state fmt.State, _ rune) { printRedacted(state) }

// String returns "[redacted]".
func (p *Private) String() string { return redacted }

// GoString returns "[redacted]".
func (p *Private) GoString() string { return redacted }

// LogValue implements [slog.LogValuer] with "[redacted]".
func (p *Private) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON always fails: private keys do not go where JSON goes.
func (p *Private) MarshalJSON() ([]byte, error) {
	return nil, errors.New("private keys have no JSON form")
}

func printRedacted(w io.Writer) {
	// A formatter has nowhere to report a failing writer; fmt itself ignores it in the same place.
	_, _ = io.WriteString(w, redacted)
}

type edSigner struct{ key *Private }

func (s *edSigner) Public() crypto.PublicKey { return s.key.public.Ed25519() }

func (s *edSigner) Sign(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.key.keys.wiped {
		return nil, ErrWiped
	}
	return s.key.keys.ed.Sign(random, message, opts)
}

func (s *edSigner) Format(state fmt.State, _ rune) { printRedacted(state) }
func (s *edSigner) LogValue() slog.Value           { return slog.StringValue(redacted) }

package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

const (
	formHybrid1 = 1 // first byte of a binary public key: Ed25519 and ML-DSA-65

	// MLDSAPublicKeySize is the length in bytes of an ML-DSA-65 public key (FIPS 204, table 2).
	MLDSAPublicKeySize = mldsa65.PublicKeySize
	// PublicSize is the length in bytes of the binary form of [Public].
	PublicSize = 1 + ed25519.PublicKeySize + MLDSAPublicKeySize
)

// Public is the public half of a node's keys. It is immutable and cheap to copy, safe for concurrent use, and
// compared with [Public.Equal]. The zero value holds no keys and verifies nothing.
type Public struct {
	keys *publicKeys
}

type publicKeys struct {
	encoded [PublicSize]byte
	id      ID
	// Expanding the ML-DSA key costs far more than reading it, and most keys read from the store verify nothing.
	mldsa func() *mldsa65.PublicKey
}

// NewPublic joins the two public keys. mldsa is the encoding of FIPS 204, which has no invalid values.
// Errors: [ErrMalformed] for a wrong length, [ErrWeakKey].
func NewPublic(ed ed25519.PublicKey, mldsa []byte) (Public, error) {
	if len(ed) != ed25519.PublicKeySize || len(mldsa) != MLDSAPublicKeySize {
		return Public{}, fmt.Errorf("public key of %d and %d bytes: %w", len(ed), len(mldsa), ErrMalformed)
	}
	return ParsePublic(append(append([]byte{formHybrid1}, ed...), mldsa...))
}

// ParsePublic reads the binary form: a byte 1, the Ed25519 key and the ML-DSA-65 key. Errors: [ErrMalformed],
// [ErrWeakKey].
func ParsePublic(encoded []byte) (Public, error) {
	if len(encoded) != PublicSize || encoded[0] != formHybrid1 {
		return Public{}, fmt.Errorf("public key of %d bytes: %w", len(encoded), ErrMalformed)
	}
	keys := &publicKeys{encoded: [PublicSize]byte(encoded)}
	if err := checkEd25519(keys.ed()); err != nil {
		return Public{}, err
	}
	keys.id = LabelNodeID.Sum(keys.ed(), keys.mldsaBytes())
	keys.mldsa = sync.OnceValue(func() *mldsa65.PublicKey {
		expanded := new(mldsa65.PublicKey)
		expanded.Unpack((*[MLDSAPublicKeySize]byte)(keys.mldsaBytes()))
		return expanded
	})
	return Public{keys}, nil
}

func (k *publicKeys) ed() []byte         { return k.encoded[1 : 1+ed25519.PublicKeySize] }
func (k *publicKeys) mldsaBytes() []byte { return k.encoded[1+ed25519.PublicKeySize:] }

// ID returns the id the keys make.
func (p Public) ID() ID {
	if p.keys == nil {
		return ID{}
	}
	return p.keys.id
}

// IsZero reports whether p holds no keys.
func (p Public) IsZero() bool { return p.keys == nil }

// Equal reports whether p and other hold the same keys.
func (p Public) Equal(other Public) bool {
	if p.keys == nil || other.keys == nil {
		return p.keys == other.keys
	}
	return p.keys.encoded == other.keys.encoded
}

// Ed25519 returns a copy of the Ed25519 key, nil if p is zero. It is the key of the node's TLS certificate.
func (p Public) Ed25519() ed25519.PublicKey {
	if p.keys == nil {
		return nil
	}
	return bytes.Clone(p.keys.ed())
}

// MLDSA returns a copy of the ML-DSA-65 key, nil if p is zero.
func (p Public) MLDSA() []byte {
	if p.keys == nil {
		return nil
	}
	return bytes.Clone(p.keys.mldsaBytes())
}

// String returns the id, not the keys, which would be 2,600 characters.
func (p Public) String() string { return p.ID().String() }

// LogValue implements [slog.LogValuer] with the id.
func (p Public) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalBinary implements [encoding.BinaryMarshaler] with the form of [ParsePublic].
func (p Public) MarshalBinary() ([]byte, error) {
	if p.keys == nil {
		return nil, errors.New("no public key to encode")
	}
	return bytes.Clone(p.keys.encoded[:]), nil
}

// UnmarshalBinary implements [encoding.BinaryUnmarshaler] as [ParsePublic] does.
func (p *Public) UnmarshalBinary(encoded []byte) error {
	parsed, err := ParsePublic(encoded)
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}

// MarshalText implements [encoding.TextMarshaler]: base64url of the binary form, empty if p is zero.
func (p Public) MarshalText() ([]byte, error) {
	if p.keys == nil {
		return []byte{}, nil
	}
	return base64.RawURLEncoding.AppendEncode(nil, p.keys.encoded[:]), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]. There is exactly one text per key.
func (p *Public) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*p = Public{}
		return nil
	}
	if len(text) != base64.RawURLEncoding.EncodedLen(PublicSize) || bytes.ContainsAny(text, "\r\n") {
		return fmt.Errorf("public key of %d characters: %w", len(text), ErrMalformed)
	}
	encoded, err := base64.RawURLEncoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("public key is not base64url: %w", ErrMalformed)
	}
	return p.UnmarshalBinary(encoded)
}

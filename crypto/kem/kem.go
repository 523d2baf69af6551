package kem

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"errors"
	"fmt"
)

const (
	mlkemSharedBytes = mlkem.SharedKeySize
	x25519Bytes      = 32

	// PublicBytes is the length of a public key.
	PublicBytes = mlkem.EncapsulationKeySize768 + x25519Bytes
	// CiphertextBytes is the length of a ciphertext.
	CiphertextBytes = mlkem.CiphertextSize768 + x25519Bytes
	// SharedBytes is the length of a shared secret.
	SharedBytes = mlkemSharedBytes + x25519Bytes

	seedBytes = mlkem.SeedSize + x25519Bytes
)

var (
	// ErrPublic means a public key that is too long, too short, or holds ML-KEM coefficients out of range
	// (the modulus check of FIPS 203 section 7.2).
	ErrPublic = errors.New("bad public key")
	// ErrCiphertext means a ciphertext of the wrong length.
	ErrCiphertext = errors.New("bad ciphertext")
	// ErrLowOrder means that the other end's X25519 value makes the shared secret all zero, whatever our own key is
	// (RFC 7748 section 6.1).
	ErrLowOrder = errors.New("the X25519 shared secret is zero")
	// ErrWiped means that the private key has been wiped.
	ErrWiped = errors.New("private key was wiped")
)

// PrivateKey is one end's key pair for one exchange. It prints as "[redacted]" and has no text or JSON form.
// Decapsulate is safe for concurrent use, but not beside Wipe.
type PrivateKey struct {
	seed   *seedBox // twice boxed, for the reason given at Shared
	public [PublicBytes]byte
}

type seedBox struct{ raw *[seedBytes]byte } // ML-KEM seed d ‖ z, X25519 scalar

// Generate makes a key pair from the operating system's randomness. (It takes no source: since Go 1.26 the standard
// library draws from its own.) The error is one of the standard library's and does not happen in practice.
func Generate() (*PrivateKey, error) {
	raw := new([seedBytes]byte)
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, fmt.Errorf("generate key pair: %w", err)
	}
	return fromSeed(raw)
}

// fromSeed takes the seed over.
func fromSeed(raw *[seedBytes]byte) (*PrivateKey, error) {
	k := &PrivateKey{seed: &seedBox{raw}}
	m, x, err := k.expand()
	if err != nil {
		return nil, fmt.Errorf("generate key pair: %w", err)
	}
	n := copy(k.public[:], m.EncapsulationKey().Bytes())
	copy(k.public[n:], x.PublicKey().Bytes())
	return k, nil
}

func (k *PrivateKey) expand() (*mlkem.DecapsulationKey768, *ecdh.PrivateKey, error) {
	m, err := mlkem.NewDecapsulationKey768(k.seed.raw[:mlkem.SeedSize])
	if err != nil {
		return nil, nil, err
	}
	x, err := ecdh.X25519().NewPrivateKey(k.seed.raw[mlkem.SeedSize:])
	return m, x, err
}

// Public returns the [PublicBytes] bytes to send to the other end. It also works after Wipe.
func (k *PrivateKey) Public() []byte { return append([]byte(nil), k.public[:]...) }

// Wipe overwrites the seeds; [PrivateKey.Decapsulate] then fails.
func (k *PrivateKey) Wipe() {
	if k.seed == nil {
		return
	}
	clear(k.seed.raw[:])
	k.seed = nil
}

// Decapsulate returns the secret that the maker of ciphertext shares with us. A ciphertext made for another key, or
// altered in its ML-KEM part, gives a secret that the other end has not (FIPS 203 section 6.3) and no error: only a MAC
// under the derived keys tells. Errors: [ErrCiphertext], [ErrLowOrder], [ErrWiped].
func (k *PrivateKey) Decapsulate(ciphertext []byte) (Shared, error) {
	if k.seed == nil {
		return Shared{}, ErrWiped
	}
	if len(ciphertext) != CiphertextBytes {
		return Shared{}, fmt.Errorf("%w: %d bytes", ErrCiphertext, len(ciphertext))
	}
	m, x, err := k.expand()
	if err != nil {
		return Shared{}, fmt.Errorf("decapsulate: %w", err)
	}
	ssX, err := agree(x, ciphertext[mlkem.CiphertextSize768:])
	if err != nil {
		return Shared{}, err
	}
	defer clear(ssX)
	ssM, err := m.Decapsulate(ciphertext[:mlkem.CiphertextSize768])
	if err != nil {
		return Shared{}, fmt.Errorf("%w: %w", ErrCiphertext, err)
	}
	defer clear(ssM)
	return newShared(ssM, ssX), nil
}

// Encapsulate makes a secret for the holder of public's private key, and the [CiphertextBytes] bytes that tell it.
// Randomness comes from the operating system. Errors: [ErrPublic], [ErrLowOrder].
func Encapsulate(public []byte) (ciphertext []byte, shared Shared, err error) {
	if len(public) != PublicBytes {
		return nil, Shared{}, fmt.Errorf("%w: %d bytes", ErrPublic, len(public))
	}
	m, err := mlkem.NewEncapsulationKey768(public[:mlkem.EncapsulationKeySize768])
	if err != nil {
		return nil, Shared{}, fmt.Errorf("%w: %w", ErrPublic, err)
	}
	x, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, Shared{}, fmt.Errorf("encapsulate: %w", err)
	}
	ssX, err := agree(x, public[mlkem.EncapsulationKeySize768:])
	if err != nil {
		return nil, Shared{}, err
	}
	defer clear(ssX)
	ssM, ctM := m.Encapsulate()
	defer clear(ssM)
	return append(ctM, x.PublicKey().Bytes()...), newShared(ssM, ssX), nil
}

// agree computes X25519. The standard library refuses an all-zero result, in constant time.
func agree(private *ecdh.PrivateKey, public []byte) ([]byte, error) {
	remote, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPublic, err)
	}
	shared, err := private.ECDH(remote)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLowOrder, err)
	}
	return shared, nil
}

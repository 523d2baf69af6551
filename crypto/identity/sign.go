package identity

import (
	"crypto/ed25519"
	"fmt"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

// SignatureSize is the length in bytes of a hybrid signature: 64 of Ed25519, then 3,309 of ML-DSA-65.
const SignatureSize = ed25519.SignatureSize + mldsa65.SignatureSize

// SignHybrid signs message with both keys for the use that label names. Errors: [ErrUnknownLabel],
// [ErrWiped].
//
// Both schemes sign the same bytes: [LabelHybrid], the use's label with its length, the signer's id and the
// message. The id ties each half to the other key, so that halves of different nodes cannot be combined.
// ML-DSA gets the use's label as its context string too, and is hedged with fresh randomness (FIPS 204
// section 3.4).
func (p *Private) SignHybrid(label Label, message []byte) ([]byte, error) {
	if p.keys.wiped {
		return nil, ErrWiped
	}
	if !label.signable() {
		return nil, fmt.Errorf("sign under %q: %w", string(label), ErrUnknownLabel)
	}
	framed := frame(label, p.ID(), message)
	signature := make([]byte, SignatureSize)
	copy(signature, ed25519.Sign(p.keys.ed, framed))
	half := signature[ed25519.SignatureSize:]
	if err := mldsa65.SignTo(p.keys.mldsa, framed, []byte(label), true, half); err != nil {
		return nil, fmt.Errorf("sign with ML-DSA-65: %w", err)
	}
	return signature, nil
}

// VerifyHybrid checks a signature of [Private.SignHybrid]. It returns nil only if both halves verify;
// otherwise [ErrBadSignature], [ErrMalformed] for a wrong length or a zero p, or [ErrUnknownLabel].
//
// Neither half is malleable: crypto/ed25519 demands a reduced S and compares R as encoded, circl demands the
// one encoding of ML-DSA's hint.
func (p Public) VerifyHybrid(label Label, message, signature []byte) error {
	if !label.signable() {
		return fmt.Errorf("verify under %q: %w", string(label), ErrUnknownLabel)
	}
	if p.keys == nil {
		return fmt.Errorf("verify without a key: %w", ErrMalformed)
	}
	if len(signature) != SignatureSize {
		return fmt.Errorf("signature of %d bytes: %w", len(signature), ErrMalformed)
	}
	framed := frame(label, p.keys.id, message)
	if !ed25519.Verify(p.keys.ed(), framed, signature[:ed25519.SignatureSize]) {
		return fmt.Errorf("Ed25519: %w", ErrBadSignature)
	}
	if !mldsa65.Verify(p.keys.mldsa(), framed, []byte(label), signature[ed25519.SignatureSize:]) {
		return fmt.Errorf("ML-DSA-65: %w", ErrBadSignature)
	}
	return nil
}

func frame(label Label, signer ID, message []byte) []byte {
	framed := make([]byte, 0, len(LabelHybrid)+1+len(label)+IDSize+len(message))
	framed = append(framed, LabelHybrid...)
	framed = append(framed, byte(len(label))) // a test holds all labels below 256 bytes
	framed = append(framed, label...)
	framed = append(framed, signer[:]...)
	return append(framed, message...)
}

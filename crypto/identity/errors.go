package identity

import "errors"

var (
	// ErrMalformed is returned for an id, key or signature that does not have the one accepted form.
	ErrMalformed = errors.New("malformed identity")
	// ErrWeakKey is returned for an Ed25519 public key that is not canonical or of small order: signatures
	// under such a key prove nothing.
	ErrWeakKey = errors.New("weak Ed25519 public key")
	// ErrBadSignature is returned when either half of a hybrid signature does not verify.
	ErrBadSignature = errors.New("hybrid signature does not verify")
	// ErrWiped is returned by a private key that has been wiped.
	ErrWiped = errors.New("private key has been wiped")
	// ErrUnknownLabel is returned when asked to sign or verify under a label that [Labels] does not list.
	ErrUnknownLabel = errors.New("label is not in the table of labels")
)

package token

import "errors"

var (
	// ErrNotInvite is returned for text that is no invite at all.
	ErrNotInvite = errors.New("not an invite: it must look like aether://HOST:PORT/CODE")
	// ErrMistyped is returned for an invite whose check does not fit: a character is wrong, missing or extra.
	ErrMistyped = errors.New("mistyped invite: a character is wrong or missing; copy the whole line again")
	// ErrVersion is returned for an intact invite of a version this program does not know.
	ErrVersion = errors.New("unknown version of invite: this program is older than the gateway; upgrade it")
	// ErrAddress is returned for a gateway address that is not HOST:PORT.
	ErrAddress = errors.New("bad gateway address")
	// ErrTooLong is returned for an invite of more than [MaxInvite] bytes.
	ErrTooLong = errors.New("invite longer than 1024 bytes")
	// ErrNotBearer is returned for text that is no bearer token of ours, or a mistyped one.
	ErrNotBearer = errors.New("not a bearer token of this program")
	// ErrNoSecret is returned when a zero [Secret] is to be encoded.
	ErrNoSecret = errors.New("no secret to encode")

	errSecret = errors.New("secrets have no text form outside an invite")
)

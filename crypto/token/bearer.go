package token

import (
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

// bearerPrefix lets secret scanners and people recognise a token; the rest is base64url of version, secret
// and check. All characters are of b64token (RFC 6750 section 2.1).
const bearerPrefix = "aether-"

const bearerVersion = 1

// Bearer returns the token that a stock client sends as "Authorization: Bearer TOKEN" (RFC 6750).
// Errors: [ErrNoSecret].
func Bearer(secret Secret) (string, error) {
	if secret.IsZero() {
		return "", ErrNoSecret
	}
	code := append([]byte{bearerVersion}, secret.box.raw[:]...)
	code = append(code, check(bearerPrefix, code)...)
	return bearerPrefix + base64.RawURLEncoding.EncodeToString(code), nil
}

// ParseBearer reads a token of [Bearer]. Anything else is [ErrNotBearer]; the error does not quote it.
func ParseBearer(text string) (Secret, error) {
	const size = 1 + SecretSize + checkSize
	encoded, ok := strings.CutPrefix(text, bearerPrefix)
	if !ok || len(encoded) != base64.RawURLEncoding.EncodedLen(size) {
		return Secret{}, ErrNotBearer
	}
	code, ok := decode(encoded)
	if !ok || len(code) != size || code[0] != bearerVersion {
		return Secret{}, ErrNotBearer
	}
	body, sum := code[:size-checkSize], code[size-checkSize:]
	if subtle.ConstantTimeCompare(check(bearerPrefix, body), sum) != 1 {
		return Secret{}, ErrNotBearer
	}
	return secretOf([SecretSize]byte(body[1:])), nil
}

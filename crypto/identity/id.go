package identity

import (
	"encoding/base32"
	"fmt"
)

// IDSize is the length of an [ID] in bytes.
const IDSize = 32

const (
	idTextSize  = 52 // base32 characters for 32 bytes, without padding
	idShortSize = 8
	idAlphabet  = "abcdefghijklmnopqrstuvwxyz234567"
)

// ID names a node: SHA-256 over [LabelNodeID] and both public keys. It is public, and short enough in text to
// be a DNS label. The zero ID names nobody.
type ID [IDSize]byte

// ParseID reads the text form of an id, 52 characters of lower-case base32. There is exactly one text per id;
// anything else is [ErrMalformed].
func ParseID(text string) (ID, error) {
	var id ID
	if len(text) != idTextSize {
		return ID{}, fmt.Errorf("node id of %d characters instead of %d: %w", len(text), idTextSize, ErrMalformed)
	}
	n, err := idEncoding().Decode(id[:], []byte(text))
	// The last character has four bits to spare, which the decoder ignores: two texts would be one id.
	if err != nil || n != IDSize || id.String() != text {
		return ID{}, fmt.Errorf("node id is not lower-case base32: %w", ErrMalformed)
	}
	return id, nil
}

// String returns the text form that [ParseID] reads.
func (id ID) String() string { return idEncoding().EncodeToString(id[:]) }

// Short returns the first 8 characters of the text form, for people to tell nodes apart. It is not unique,
// and nothing may be decided by it.
func (id ID) Short() string { return id.String()[:idShortSize] }

// IsZero reports whether id names nobody.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText implements [encoding.TextMarshaler] with the form of [ID.String].
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler] as [ParseID] does.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

func idEncoding() *base32.Encoding {
	return base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding)
}

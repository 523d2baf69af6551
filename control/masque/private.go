package masque

import (
	"errors"
	"fmt"
)

// A private capsule's body begins with four bytes that tell it from another
// project's use of the same number, and a version.
const (
	privateMagic       = 0x53a65594
	privateHeaderBytes = 5

	// PrivateVersion is the version of the private capsules sent and understood.
	PrivateVersion = 1

	// MaxPrivateBytes is the longest payload of a private capsule.
	MaxPrivateBytes = MaxCapsuleBytes - privateHeaderBytes
)

// errForeign says that a capsule of a private type is not for this version of
// this project: it is ignored, as an unknown capsule is.
var errForeign = errors.New("private capsule of another magic or version")

// ParsePrivate parses the body of a private capsule and returns the payload, which
// shares the body's memory.
func ParsePrivate(body []byte) ([]byte, error) {
	if len(body) < privateHeaderBytes {
		return nil, errForeign
	}
	magic := uint32(body[0])<<24 | uint32(body[1])<<16 | uint32(body[2])<<8 | uint32(body[3])
	if magic != privateMagic || body[4] != PrivateVersion {
		return nil, errForeign
	}
	return body[privateHeaderBytes:], nil
}

// AppendPrivate appends the body of a private capsule.
func AppendPrivate(dst, payload []byte) ([]byte, error) {
	if len(payload) > MaxPrivateBytes {
		return nil, fmt.Errorf("private capsule of %d bytes: %w", len(payload), errExcessive)
	}
	magic := uint32(privateMagic)
	dst = append(dst, byte(magic>>24), byte(magic>>16), byte(magic>>8), byte(magic), PrivateVersion)
	return append(dst, payload...), nil
}

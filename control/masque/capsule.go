package masque

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go/quicvarint"
)

// CapsuleType is the type of a capsule (RFC 9297 section 3.2), at most 2^62-1.
type CapsuleType uint64

// Capsule types of RFC 9484 section 12.4 and RFC 9297 section 5.4.
const (
	capsuleDatagram           CapsuleType = 0x00
	capsuleAddressAssign      CapsuleType = 0x01
	capsuleAddressRequest     CapsuleType = 0x02
	capsuleRouteAdvertisement CapsuleType = 0x03
)

// Private capsule types: fixed random numbers of 62 bits, none of them one of the
// values RFC 9297 section 5.4 reserves (0x29*N+0x17). Peers that do not know them
// skip them.
const (
	// CapsuleLane carries the messages that make, rekey and close a lane.
	CapsuleLane CapsuleType = 0x3df488e22b1b9c17
	// CapsuleMap carries nodes, routes and policy.
	CapsuleMap CapsuleType = 0x052440c14cc3586c
	// CapsuleReport carries liveness and path reports.
	CapsuleReport CapsuleType = 0x037921bf3072cdb3
)

// MaxCapsuleBytes is the longest body of a capsule that is parsed or sent. A
// longer one of a type parsed here ends the session; of any other type it is skipped.
const MaxCapsuleBytes = 64 << 10

// capsuleReadBufferBytes is what one session holds to read its stream.
const capsuleReadBufferBytes = 4 << 10

// parsed reports whether bodies of type t are read into memory.
func (t CapsuleType) parsed() bool {
	switch t {
	case capsuleAddressAssign, capsuleAddressRequest, capsuleRouteAdvertisement,
		CapsuleLane, CapsuleMap, CapsuleReport:
		return true
	}
	return false
}

// private reports whether t is one of this project's types.
func (t CapsuleType) private() bool {
	return t == CapsuleLane || t == CapsuleMap || t == CapsuleReport
}

// appendCapsule appends a capsule: type, length, body.
func appendCapsule(dst []byte, t CapsuleType, body []byte) []byte {
	dst = quicvarint.Append(dst, uint64(t))
	dst = quicvarint.Append(dst, uint64(len(body)))
	return append(dst, body...)
}

// capsuleReader splits a stream into capsules. It holds one body of at most
// MaxCapsuleBytes; bodies of types not parsed are never held.
type capsuleReader struct {
	r    *bufio.Reader
	body []byte
}

func newCapsuleReader(r io.Reader) *capsuleReader {
	return &capsuleReader{r: bufio.NewReaderSize(r, capsuleReadBufferBytes)}
}

// next returns the next capsule. The body is valid until the next call and nil for
// a type that is not parsed. The error is io.EOF between capsules only; inside one
// it wraps errMalformed (RFC 9297 section 3.3), or errExcessive for too long a body.
func (c *capsuleReader) next() (CapsuleType, []byte, error) {
	if _, err := c.r.Peek(1); err != nil {
		return 0, nil, err
	}
	number, err := quicvarint.Read(c.r)
	if err != nil {
		return 0, nil, truncated(err, "type")
	}
	length, err := quicvarint.Read(c.r)
	if err != nil {
		return 0, nil, truncated(err, "length")
	}
	t := CapsuleType(number)
	if !t.parsed() {
		return t, nil, c.skip(length)
	}
	if length > MaxCapsuleBytes {
		return t, nil, fmt.Errorf("capsule type %#x of %d bytes: %w", number, length, errExcessive)
	}
	if uint64(cap(c.body)) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	if _, err := io.ReadFull(c.r, c.body); err != nil {
		return t, nil, truncated(err, "body")
	}
	return t, c.body, nil
}

// skip drops length bytes without holding more than the reader's buffer.
func (c *capsuleReader) skip(length uint64) error {
	const step = 1 << 30
	for length > 0 {
		n, err := c.r.Discard(int(min(length, step)))
		if err != nil {
			return truncated(err, "body")
		}
		length -= uint64(n)
	}
	return nil
}

// truncated turns an end of stream inside a capsule into a malformed capsule and
// leaves errors of the transport alone.
func truncated(err error, part string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: stream ended inside the %s", errMalformed, part)
	}
	return err
}

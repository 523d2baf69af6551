package lane

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
)

// Sizes of what names and resets a lane, in bytes.
const (
	// ConnectionIDBytes is the length of every connection ID that this project issues, sessions included.
	ConnectionIDBytes = 8
	// ResetTokenBytes is the length of a stateless reset token (RFC 9000 section 10.3).
	ResetTokenBytes = 16
	// ResetKeyBytes is the length of the static key that reset tokens come from.
	ResetKeyBytes = 32
)

// minResetBytes is the shortest stateless reset (RFC 9000 section 10.3): 38 unpredictable bits after the two fixed ones,
// and the token.
const minResetBytes = 5 + ResetTokenBytes

// errEntropy says that the injected source of randomness failed.
var errEntropy = errors.New("source of randomness failed")

// ConnectionID is a destination connection ID, chosen by the receiver: byte 0 names the socket that owns it, the
// rest looks random. It is public.
type ConnectionID [ConnectionIDBytes]byte

// Socket returns the number of the socket that owns the connection ID.
func (c ConnectionID) Socket() byte { return c[0] }

// String returns the connection ID in hexadecimal.
func (c ConnectionID) String() string { return hex.EncodeToString(c[:]) }

// ResetToken is a stateless reset token (RFC 9000 section 10.3). Who knows it can end the lane, so it prints as
// "[redacted]".
type ResetToken [ResetTokenBytes]byte

// String hides the token.
func (ResetToken) String() string { return redacted }

// MarshalText hides the token.
func (ResetToken) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format hides the token under every verb.
func (ResetToken) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue hides the token.
func (ResetToken) LogValue() slog.Value { return slog.StringValue(redacted) }

const redacted = "[redacted]"

// The tail of a connection ID is a counter under a keyed permutation of 56 bits, a balanced Feistel network whose
// round function is AES. A permutation never maps two counters to one tail, so nothing has to be remembered.
const (
	halfBits      = 28
	halfMask      = 1<<halfBits - 1
	feistelRounds = 10
)

// IDGenerator issues connection IDs, none of them twice: not for two sockets, not for a lane and a session. A
// process has one. Its methods are safe for concurrent use.
type IDGenerator struct {
	block   cipher.Block
	counter atomic.Uint64
}

// NewIDGenerator makes a generator from 16 bytes of random, which must be a cryptographic source.
func NewIDGenerator(random io.Reader) (*IDGenerator, error) {
	var key [16]byte
	defer clear(key[:])
	if _, err := io.ReadFull(random, key[:]); err != nil {
		return nil, fmt.Errorf("key of the connection IDs: %w", errors.Join(errEntropy, err))
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("key of the connection IDs: %w", err)
	}
	return &IDGenerator{block: block}, nil
}

// Next returns a connection ID that socket owns. The 2^56 IDs of a process outlast it: at a million per second
// they last for 2,000 years.
func (g *IDGenerator) Next(socket byte) ConnectionID {
	tail := g.permute(g.counter.Add(1))
	var id ConnectionID
	binary.BigEndian.PutUint64(id[:], tail)
	id[0] = socket
	return id
}

// permute maps the low 56 bits of n one to one.
func (g *IDGenerator) permute(n uint64) uint64 {
	left, right := uint32(n>>halfBits)&halfMask, uint32(n)&halfMask
	var block [aes.BlockSize]byte
	for round := range byte(feistelRounds) {
		clear(block[:])
		block[0] = round
		binary.BigEndian.PutUint32(block[4:], right)
		g.block.Encrypt(block[:], block[:])
		left, right = right, left^binary.BigEndian.Uint32(block[:])&halfMask
	}
	return uint64(left)<<halfBits | uint64(right)
}

// Resetter makes the stateless reset tokens of this host's connection IDs. The resets that carry them are sent by
// quic-go, which has the same key. Its methods are safe for concurrent use.
type Resetter struct {
	key *resetKey
}

type resetKey [ResetKeyBytes]byte

// NewResetter takes the host's static key. It is the same after a restart, or resets would mean nothing.
func NewResetter(key [ResetKeyBytes]byte) *Resetter {
	k := resetKey(key)
	return &Resetter{key: &k}
}

// String hides the key.
func (*Resetter) String() string { return redacted }

// LogValue hides the key.
func (*Resetter) LogValue() slog.Value { return slog.StringValue(redacted) }

// Token returns the token of a connection ID: HMAC-SHA-256 of the connection ID under the static key, cut to 16
// bytes (RFC 9000 section 10.3.2). QUIC connections of the same host use the same function, so one reset is valid
// whether an unknown connection ID was a lane's or a session's.
func (r *Resetter) Token(id ConnectionID) ResetToken {
	h := hmac.New(sha256.New, r.key[:])
	h.Write(id[:])
	return ResetToken(h.Sum(nil)[:ResetTokenBytes])
}

// ResetTokenOf returns what would be the token if a packet that could not be opened were a stateless reset (RFC 9000
// section 10.3.1). It is false for a packet that cannot be one.
func ResetTokenOf(packet []byte) (ResetToken, bool) {
	if len(packet) < minResetBytes || packet[0]&0x80 != 0 {
		return ResetToken{}, false
	}
	return ResetToken(packet[len(packet)-ResetTokenBytes:]), true
}

// Equal compares in constant time.
func (t ResetToken) Equal(o ResetToken) bool { return subtle.ConstantTimeCompare(t[:], o[:]) == 1 }

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

const (
	// minResetBytes is the shortest stateless reset (RFC 9000 section 10.3): 38 unpredictable bits after the two
	// fixed ones, and the token.
	minResetBytes = 5 + ResetTokenBytes
	// maxResetBytes bounds a reset from above: long enough to pass for a packet, and no amplifier.
	maxResetBytes = 42
)

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

// Resetter makes the stateless reset tokens of this host's connection IDs and the resets that carry them. Its
// methods are safe for concurrent use.
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

// AppendReset appends a stateless reset for a packet of triggerBytes that came for id and reports whether there is
// one: it is shorter than what it answers, so that two hosts which have both lost their state end up silent (RFC 9000
// section 10.3.3), and at most 42 bytes. random is a cryptographic source of at most 26 bytes.
func (r *Resetter) AppendReset(dst []byte, id ConnectionID, triggerBytes int, random io.Reader) ([]byte, bool, error) {
	size := min(triggerBytes-1, maxResetBytes)
	if size < minResetBytes {
		return dst, false, nil
	}
	var packet [maxResetBytes]byte
	noise := packet[:size-ResetTokenBytes]
	if _, err := io.ReadFull(random, noise); err != nil {
		return dst, false, fmt.Errorf("make a stateless reset: %w", errors.Join(errEntropy, err))
	}
	noise[0] = noise[0]&0x3f | 0x40 // short header, fixed bit
	token := r.Token(id)
	copy(packet[size-ResetTokenBytes:], token[:])
	return append(dst, packet[:size]...), true, nil
}

// IsReset reports whether a packet that could not be opened is a stateless reset with one of the tokens. Only the
// tokens of connection IDs in use belong into the list (RFC 9000 section 10.3.1). It takes the same time whichever
// token matches, and whether one does.
func IsReset(packet []byte, tokens []ResetToken) bool {
	if len(packet) < minResetBytes || packet[0]&0x80 != 0 {
		return false
	}
	tail := packet[len(packet)-ResetTokenBytes:]
	found := 0
	for i := range tokens {
		found |= subtle.ConstantTimeCompare(tail, tokens[i][:])
	}
	return found == 1
}

package lane

import "github.com/aethertunnel/aethertunnel/crypto/aead"

// Sizes of a lane packet, in bytes.
const (
	// HeaderBytes is the length of everything before the frames.
	HeaderBytes = 1 + ConnectionIDBytes + numberBytes
	// OverheadBytes is what a lane packet adds to its frames.
	OverheadBytes = HeaderBytes + aead.TagBytes
	// MinPacketBytes is the shortest lane packet: at least one byte of frames (RFC 9000 section 12.4).
	MinPacketBytes = OverheadBytes + 1

	numberBytes  = 4
	numberOffset = 1 + ConnectionIDBytes
)

// Bits of the first byte (RFC 9000 section 17.3.1).
const (
	longHeaderBit    = 0x80
	fixedBit         = 0x40
	reservedBits     = 0x18
	phaseShift       = 2
	numberLengthBits = 0x03
	fourByteNumber   = 0x03
	protectedBits    = 0x1f // under header protection, with the packet number
)

const (
	// NumberLimit is the first packet number that does not exist (RFC 9000 section 12.3).
	NumberLimit = 1 << 62
	// HandoverSkip is how far past the exported number a process that takes a lane over starts.
	HandoverSkip = 1 << 20
	// FallbackSkip is how far past the exported number the process that exported it goes on when the other has failed.
	FallbackSkip = 1 << 21
	// PreviousKeyNanos is how long the opener keeps the key of the epoch before.
	PreviousKeyNanos = 3_000_000_000
)

// Keys protects one direction of one lane in one epoch.
type Keys struct {
	Epoch uint32
	Key   *aead.PacketKey
}

func (k Keys) fits(header *aead.HeaderKey) bool {
	return k.Key != nil && header != nil && k.Key.Suite() == header.Suite()
}

func phaseBit(epoch uint32) byte { return byte(epoch&1) << phaseShift }

// reconstruct returns the packet number with the given low 32 bits that is nearest to expected, the number after the
// highest one opened (RFC 9000 appendix A.3, for 4-byte numbers).
func reconstruct(expected uint64, low uint32) uint64 {
	const window, half = 1 << 32, 1 << 31
	ahead := uint64(low - uint32(expected))
	number := expected + ahead
	switch {
	case ahead > half && number >= window, number >= NumberLimit:
		return number - window
	}
	return number
}

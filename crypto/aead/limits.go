package aead

// Limits on the use of one key. They are below those of RFC 9001 section 6.6 and its appendix B for every suite, and
// the same for all, so that a suite's name never decides when a lane ratchets.
const (
	// MaxPackets is how many packets one key may seal while none is longer than [LongPacketBytes].
	MaxPackets = 1 << 26
	// MaxLongPackets is how many packets one key may seal where some may be longer.
	MaxLongPackets = 1 << 23
	// LongPacketBytes is the longest packet under the higher limit: appendix B.1.1 of RFC 9001 computes with 2^11.
	LongPacketBytes = 1 << 11
	// MaxFailedOpens is how many packets that fail to open one key survives; ChaCha20-Poly1305 sets it.
	MaxFailedOpens = 1 << 36
)

// PacketLimit returns how many packets one key may seal where none is longer than maxPacketBytes.
func PacketLimit(maxPacketBytes int) uint64 {
	if maxPacketBytes > LongPacketBytes {
		return MaxLongPackets
	}
	return MaxPackets
}

package lane

import "errors"

// Verdict says what became of a packet that was to be sealed or opened. Every value but [VerdictOK] is a reason to
// drop it and has a counter at whoever asked.
type Verdict uint8

// The verdicts.
const (
	// VerdictOK means that the packet was sealed, or opened and accepted.
	VerdictOK Verdict = iota
	// VerdictForm means, on opening, a datagram that is no lane packet: too short, a long header, or no fixed bit.
	VerdictForm
	// VerdictNoKey means a packet of an epoch whose key is not here any more, or not yet.
	VerdictNoKey
	// VerdictForged means that authentication failed.
	VerdictForged
	// VerdictReplayed means an authentic packet whose number was opened before.
	VerdictReplayed
	// VerdictOld means an authentic packet too far behind the highest number to know whether it is a replay.
	VerdictOld
	// VerdictReserved means an authentic packet with reserved bits set or a packet number length other than 4: the
	// other end is at fault.
	VerdictReserved
	// VerdictClosed means that the lane must close: a key has failed to open as many packets as it may.
	VerdictClosed
	// VerdictSize means, on sealing, no frames, too many for the longest packet, or no room in the output.
	VerdictSize
	// VerdictKeyLimit means that the key has sealed as many packets as it may. Packets go over the session until the
	// next ratchet.
	VerdictKeyLimit
	// VerdictNumbersUsed means that all 2^62 packet numbers of the lane are used.
	VerdictNumbersUsed
	// VerdictExported means that the sealer's state was handed to another process.
	VerdictExported
	// Verdicts is how many verdicts there are, for arrays of counters.
	Verdicts
)

var verdictNames = [Verdicts]string{
	"ok", "form", "no_key", "forged", "replayed", "old", "reserved_bits", "closed", "size", "key_limit", "numbers_used",
	"exported",
}

// String returns the verdict as it appears in status and metrics.
func (v Verdict) String() string {
	if v < Verdicts {
		return verdictNames[v]
	}
	return "unknown"
}

var (
	// ErrKeyEpoch means keys of an epoch that does not follow the one in use.
	ErrKeyEpoch = errors.New("key of an epoch that does not follow")
	// ErrKeySuite means keys that are missing, or of another suite than the lane's.
	ErrKeySuite = errors.New("key missing or of another suite than the lane's")
	// ErrNumber means a first packet number past the last one, or before its key's first.
	ErrNumber = errors.New("packet number out of range")
	// ErrPacketSize means a longest packet shorter than a lane packet can be.
	ErrPacketSize = errors.New("longest packet too short")
)

package lane

import (
	"encoding/binary"
	"fmt"
)

// Reason says why a lane was refused or closed. A receiver treats a number that it does not know like
// [ReasonUnspecified].
type Reason uint16

// The reasons. Those marked (local) are not sent.
const (
	// ReasonUnspecified gives no reason.
	ReasonUnspecified Reason = 0
	// ReasonDown is an orderly end by the operator or the process.
	ReasonDown Reason = 1
	// ReasonRevoked says that policy no longer admits the peer.
	ReasonRevoked Reason = 2
	// ReasonSuite says that no suite of the offer is allowed here.
	ReasonSuite Reason = 3
	// ReasonPolicy says that no lane, or no further lane, is wanted.
	ReasonPolicy Reason = 4
	// ReasonProtocol says that the other side broke the protocol.
	ReasonProtocol Reason = 5
	// ReasonForgery says that too many packets failed to open under one key.
	ReasonForgery Reason = 6
	// ReasonExpired says that there was no ratchet for 180 s.
	ReasonExpired Reason = 7
	// ReasonExcessive says that the other side ratchets too often.
	ReasonExcessive Reason = 8
	// ReasonInternal says that something failed here: no randomness, no keys.
	ReasonInternal Reason = 9
	// ReasonReset says that the other side has answered packets of the lane with a stateless reset.
	ReasonReset Reason = 10
	// ReasonTimeout says that an offer was not answered in time (local).
	ReasonTimeout Reason = 256
	// ReasonSessionEnded is an orderly end of the session (local).
	ReasonSessionEnded Reason = 257
	// ReasonReplaced says that a new lane carries the packets (local).
	ReasonReplaced Reason = 258
	// ReasonSessionLost is the abrupt loss of a session before the lane existed (local).
	ReasonSessionLost Reason = 259
	// ReasonUnknownLane says that the other side does not know the lane any more (local).
	ReasonUnknownLane Reason = 260
)

// String names the reason for log lines.
func (r Reason) String() string {
	sent := [...]string{
		"unspecified", "down", "revoked", "no common suite", "policy", "protocol violation", "forged packets",
		"no ratchet in time", "too many ratchets", "internal error", "stateless reset",
	}
	local := [...]string{
		"no answer to the offer", "session ended", "replaced by a new lane", "session lost",
		"lane unknown to the peer",
	}
	switch {
	case int(r) < len(sent):
		return sent[r]
	case r >= ReasonTimeout && int(r-ReasonTimeout) < len(local):
		return local[r-ReasonTimeout]
	}
	return fmt.Sprintf("reason %d", uint16(r))
}

// Refusal answers an offer: there will be no lane. The reason is one that is sent.
type Refusal struct {
	Number uint8
	Offer  OfferID
	Reason Reason
}

// Append appends the message.
func (r *Refusal) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindRefusal, r.Number, r.Offer)
	return binary.BigEndian.AppendUint16(dst, uint16(r.Reason))
}

// Close ends a lane at once: both sides wipe its keys and take no packet for it any more.
type Close struct {
	Number uint8
	Lane   ID
	Reason Reason
}

// Append appends the message.
func (c *Close) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindClose, c.Number, c.Lane)
	return binary.BigEndian.AppendUint16(dst, uint16(c.Reason))
}

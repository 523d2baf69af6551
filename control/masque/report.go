package masque

import (
	"encoding/binary"
	"errors"
)

// ReportKind is the first byte of the payload of a report capsule.
type ReportKind byte

// Kinds below FirstFreeReportKind belong to this package; the others are the
// caller's and reach it as [PrivateCapsule] events.
const (
	reportEchoRequest ReportKind = 1
	reportEchoAnswer  ReportKind = 2

	// FirstFreeReportKind is the lowest kind that may be sent by SendPrivate.
	FirstFreeReportKind ReportKind = 0x10
)

// MaxPingPadding is the most padding of an echo, in bytes. It fills two packets of the
// largest size that quic-go sends (1,452 bytes) and so makes each side send at least
// one packet of its full size.
const MaxPingPadding = 4 << 10

// echoBytes is the length of an echo's payload without padding: kind and id.
const echoBytes = 1 + 8

var errReservedReport = errors.New("report kind reserved by the session")

// echo is a request to answer, or the answer, with as much padding.
type echo struct {
	kind         ReportKind
	id           uint64
	paddingBytes int
}

// payload returns the payload of the echo's report capsule. Padding is zeros.
func (e echo) payload() []byte {
	b := make([]byte, echoBytes+e.paddingBytes)
	b[0] = byte(e.kind)
	binary.BigEndian.PutUint64(b[1:], e.id)
	return b
}

// parseEcho parses the payload of a report capsule. It returns false if the
// payload is no echo, or a longer one than is answered. Padding is not looked at.
func parseEcho(payload []byte) (echo, bool) {
	if len(payload) < echoBytes || len(payload) > echoBytes+MaxPingPadding {
		return echo{}, false
	}
	kind := ReportKind(payload[0])
	if kind != reportEchoRequest && kind != reportEchoAnswer {
		return echo{}, false
	}
	return echo{kind, binary.BigEndian.Uint64(payload[1:]), len(payload) - echoBytes}, true
}

// reservedReport reports whether a report's payload is of a kind that this
// package keeps for itself; an empty one is.
func reservedReport(payload []byte) bool {
	return len(payload) == 0 || ReportKind(payload[0]) < FirstFreeReportKind
}

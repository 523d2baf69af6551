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

// echoBytes is the length of an echo's payload: kind and id.
const echoBytes = 1 + 8

var errReservedReport = errors.New("report kind reserved by the session")

// appendEcho appends the payload of an echo request or answer.
func appendEcho(dst []byte, kind ReportKind, id uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, byte(kind)), id)
}

// parseEcho parses the payload of a report capsule. It returns false if the
// payload is no echo, or one of a length this version does not know.
func parseEcho(payload []byte) (kind ReportKind, id uint64, ok bool) {
	if len(payload) != echoBytes {
		return 0, 0, false
	}
	kind = ReportKind(payload[0])
	if kind != reportEchoRequest && kind != reportEchoAnswer {
		return 0, 0, false
	}
	return kind, binary.BigEndian.Uint64(payload[1:]), true
}

// reservedReport reports whether a report's payload is of a kind that this
// package keeps for itself; an empty one is.
func reservedReport(payload []byte) bool {
	return len(payload) == 0 || ReportKind(payload[0]) < FirstFreeReportKind
}

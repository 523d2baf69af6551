package lane

import "encoding/binary"

// Frame types (RFC 9000 section 19, RFC 9221 section 4). A lane packet carries no others.
const (
	FramePadding       = 0x00
	FramePing          = 0x01
	FramePathChallenge = 0x1a
	FramePathResponse  = 0x1b
	FrameDatagram      = 0x30
	// FrameReport is the type of a [Report]: our own, chosen at random in the range of four-byte variable-length
	// integers (RFC 9000 section 22.1.2 asks for that of types without a registration).
	FrameReport = 0x2d4f91c6
)

const (
	// DatagramHeaderBytes is the length of a DATAGRAM frame's type, quarter stream ID and context ID.
	DatagramHeaderBytes = 3
	// MaxContextID is the highest context ID (RFC 9484 section 6) in a lane packet: one byte.
	MaxContextID = 63
	// PathDataBytes is the length of what a PATH_CHALLENGE carries and a PATH_RESPONSE returns.
	PathDataBytes = 8
	// MaxReportBytes is the longest report frame.
	MaxReportBytes = 4 + reportFields*maxVarintBytes
)

// PathData is the content of a PATH_CHALLENGE or PATH_RESPONSE frame (RFC 9000 sections 19.17 and 19.18).
type PathData [PathDataBytes]byte

// FrameSet says which kinds of frames a packet had, besides DATAGRAM.
type FrameSet uint8

// The members of a [FrameSet].
const (
	HasPing FrameSet = 1 << iota
	HasPathChallenge
	HasPathResponse
	HasReport
	HasPadding
)

// Has reports whether all of members are in s.
func (s FrameSet) Has(members FrameSet) bool { return s&members == members }

// Datagram is a DATAGRAM frame. It must be last in its packet: it has no length of its own.
type Datagram struct {
	QuarterStreamID uint8
	ContextID       uint8
	// Payload is what the context carries, at least one byte; it lies in the packet. Nil stands for no DATAGRAM.
	Payload []byte
}

// Frames is the content of a packet. Fields whose frame is not in Set keep whatever they had.
type Frames struct {
	Set       FrameSet
	Challenge PathData
	Response  PathData
	Report    Report
	Datagram  Datagram
}

// ParseDatagram is the fast path for the usual packet: exactly one DATAGRAM frame. It returns false for every other
// one, which [ParseFrames] takes. The payload lies in frames.
func ParseDatagram(frames []byte) (d Datagram, ok bool) {
	if len(frames) <= DatagramHeaderBytes || frames[0] != FrameDatagram ||
		frames[1] > MaxQuarterStreamID || frames[2] > MaxContextID {
		return Datagram{}, false
	}
	return Datagram{frames[1], frames[2], frames[DatagramHeaderBytes:]}, true
}

// ParseFrames reads the plaintext of a packet into f and reports whether it is well formed: at least one frame, only
// frames of this package, each kind at most once (a run of PADDING counts as one), a DATAGRAM only as the last and not
// empty, a report as [Report] says, and every variable-length integer in its shortest form. What is not well formed is
// to be dropped whole; f is undefined then.
func ParseFrames(frames []byte, f *Frames) bool {
	f.Set, f.Datagram = 0, Datagram{}
	if len(frames) == 0 {
		return false
	}
	for len(frames) > 0 {
		if frames[0] == FrameDatagram {
			var ok bool
			f.Datagram, ok = ParseDatagram(frames)
			return ok
		}
		rest, kind := f.parseOne(frames)
		if kind == 0 || f.Set&kind != 0 {
			return false
		}
		f.Set |= kind
		frames = rest
	}
	return true
}

// parseOne reads the first frame of b, which is not empty, and returns what follows it. A kind of 0 means that it is
// none.
func (f *Frames) parseOne(b []byte) (rest []byte, kind FrameSet) {
	switch b[0] {
	case FramePadding:
		for len(b) > 0 && b[0] == FramePadding {
			b = b[1:]
		}
		return b, HasPadding
	case FramePing:
		return b[1:], HasPing
	case FramePathChallenge:
		if len(b) >= 1+PathDataBytes {
			f.Challenge = PathData(b[1:])
			return b[1+PathDataBytes:], HasPathChallenge
		}
	case FramePathResponse:
		if len(b) >= 1+PathDataBytes {
			f.Response = PathData(b[1:])
			return b[1+PathDataBytes:], HasPathResponse
		}
	case reportType[0]:
		if len(b) >= len(reportType) && [4]byte(b) == reportType {
			if rest, ok := f.Report.parse(b[len(reportType):]); ok {
				return rest, HasReport
			}
		}
	}
	return nil, 0
}

// AppendPing appends a PING frame.
func AppendPing(b []byte) []byte { return append(b, FramePing) }

// AppendPadding appends n bytes of PADDING.
func AppendPadding(b []byte, n int) []byte {
	var zeros [64]byte
	for ; n > len(zeros); n -= len(zeros) {
		b = append(b, zeros[:]...)
	}
	return append(b, zeros[:max(n, 0)]...)
}

// AppendPathChallenge appends a PATH_CHALLENGE frame. Its data must be unpredictable.
func AppendPathChallenge(b []byte, data PathData) []byte {
	return append(append(b, FramePathChallenge), data[:]...)
}

// AppendPathResponse appends a PATH_RESPONSE frame.
func AppendPathResponse(b []byte, data PathData) []byte {
	return append(append(b, FramePathResponse), data[:]...)
}

// AppendDatagramHeader appends all of a DATAGRAM frame but its payload, which the caller appends, as the last thing in
// the packet. IDs above [MaxQuarterStreamID] and [MaxContextID] are the caller's mistake, and no receiver takes them.
func AppendDatagramHeader(b []byte, quarterStreamID, contextID uint8) []byte {
	return append(b, FrameDatagram, quarterStreamID, contextID)
}

// PutDatagramHeader writes the same in place, right before a payload that lies in a buffer already.
func PutDatagramHeader(b *[DatagramHeaderBytes]byte, quarterStreamID, contextID uint8) {
	b[0], b[1], b[2] = FrameDatagram, quarterStreamID, contextID
}

const maxVarintBytes = 8

// appendVarint appends a variable-length integer in its shortest form (RFC 9000 section 16). v is below 2^62.
func appendVarint(b []byte, v uint64) []byte {
	switch {
	case v < 1<<6:
		return append(b, byte(v))
	case v < 1<<14:
		return binary.BigEndian.AppendUint16(b, uint16(v)|1<<14)
	case v < 1<<30:
		return binary.BigEndian.AppendUint32(b, uint32(v)|2<<30)
	}
	return binary.BigEndian.AppendUint64(b, v|3<<62)
}

// parseVarint reads a variable-length integer, which must be in its shortest form.
func parseVarint(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	n := 1 << (b[0] >> 6)
	if len(b) < n {
		return 0, nil, false
	}
	v = uint64(b[0] & 0x3f)
	for _, c := range b[1:n] {
		v = v<<8 | uint64(c)
	}
	if n > 1 && v < 1<<(8*(n/2)-2) {
		return 0, nil, false
	}
	return v, b[n:], true
}

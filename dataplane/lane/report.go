package lane

// Report tells the other end how its packets have arrived; it rides in packets that are sent anyway. On the wire it is
// [FrameReport] as a variable-length integer, then the fields below in this order, each a variable-length integer
// (RFC 9000 section 16) in its shortest form. Counts are over the lane's life, not per epoch. A report is malformed
// where Received is 0 or above Highest + 1, where Reordered, or the sum of the ECN counts, is above Received, or
// where DelayMicros is above [MaxReportDelayMicros].
//
// The receiver of a report gets the round trip time as (now − when it sent packet Highest) − DelayMicros, the variation
// of the one-way delay from how ArrivalMicros advances beside its own times of sending, and the loss between two
// reports as the advance of Highest less that of Received.
type Report struct {
	// Highest is the highest packet number opened.
	Highest uint64
	// Received is how many packets were opened, each number once.
	Received uint64
	// Reordered is how many of them came after one with a higher number.
	Reordered uint64
	// Duplicates is how many authentic packets were dropped because their number was opened before.
	Duplicates uint64
	// ECT0, ECT1 and CE are how many packets came with each ECN codepoint (RFC 3168 section 5).
	ECT0, ECT1, CE uint64
	// DelayMicros is the time from the arrival of packet Highest to the sending of the report, in microseconds.
	DelayMicros uint64
	// ArrivalMicros is when packet Highest came, in microseconds on the reporter's clock since its first packet.
	ArrivalMicros uint64
}

// MaxReportDelayMicros is the longest DelayMicros: one hour. An end that has not received a packet for longer does not
// report.
const MaxReportDelayMicros = 3_600_000_000

const reportFields = 9

// reportType is FrameReport as a variable-length integer.
var reportType = [4]byte{FrameReport>>24 | 0x80, FrameReport >> 16 & 0xff, FrameReport >> 8 & 0xff, FrameReport & 0xff}

// AppendReport appends a report frame, at most [MaxReportBytes]. A report that is malformed (see [Report]) is not
// appended.
func AppendReport(b []byte, r *Report) []byte {
	if !r.valid() {
		return b
	}
	b = append(b, reportType[:]...)
	for _, v := range [reportFields]uint64{
		r.Highest, r.Received, r.Reordered, r.Duplicates, r.ECT0, r.ECT1, r.CE, r.DelayMicros, r.ArrivalMicros,
	} {
		b = appendVarint(b, v)
	}
	return b
}

func (r *Report) parse(b []byte) (rest []byte, ok bool) {
	var v [reportFields]uint64
	for i := range v {
		if v[i], b, ok = parseVarint(b); !ok {
			return nil, false
		}
	}
	*r = Report{v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]}
	return b, r.valid()
}

func (r *Report) valid() bool {
	const limit = NumberLimit // of every field; also keeps the sums from overflowing
	if r.Highest >= limit || r.Duplicates >= limit || r.ArrivalMicros >= limit ||
		r.ECT0 >= limit || r.ECT1 >= limit || r.CE >= limit {
		return false
	}
	return r.Received > 0 && r.Received <= r.Highest+1 && r.Received < limit && r.Reordered <= r.Received &&
		r.ECT0+r.ECT1+r.CE <= r.Received && r.DelayMicros <= MaxReportDelayMicros
}

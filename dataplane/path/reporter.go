package path

import "github.com/aethertunnel/aethertunnel/dataplane/lane"

const (
	// ReportNanos is how long after the last report another one is due while the lane is loaded.
	ReportNanos = 20 * millisecond
	// IdleReportNanos is the same for a lane that is not loaded.
	IdleReportNanos = 250 * millisecond
	// loadedPackets is how many packets since the last report make a lane loaded.
	loadedPackets = 8
)

// Reporter says when the packets that have come are to be reported. The zero value is ready.
type Reporter struct {
	fresh     int
	reported  bool // a report has been sent
	lastNanos int64
}

// Reportable reports whether a packet with frames other than one DATAGRAM is to be reported: reports on reports would
// never end, and what path frames say, their answers say too.
func Reportable(f *lane.Frames) bool { return f.Datagram.Payload != nil || f.Set.Has(lane.HasPing) }

// Arrived is told how many packets have come that are to be reported: those with a DATAGRAM, and other ones that are
// [Reportable]. Once per batch is enough.
func (r *Reporter) Arrived(packets int) { r.fresh += packets }

// Due reports whether a report should be sent, alone if nothing else is. The first packets are reported at once.
func (r *Reporter) Due(nowNanos int64) bool { return nowNanos >= r.NextNanos() }

// NextNanos returns when a report will be due if nothing else comes, or [Never].
func (r *Reporter) NextNanos() int64 {
	switch {
	case r.fresh == 0:
		return Never
	case !r.reported:
		return 0
	case r.fresh >= loadedPackets:
		return r.lastNanos + ReportNanos
	}
	return r.lastNanos + IdleReportNanos
}

// Sent is told that a report was sent, due or not: it is also the answer to a PING.
func (r *Reporter) Sent(nowNanos int64) { *r = Reporter{reported: true, lastNanos: nowNanos} }

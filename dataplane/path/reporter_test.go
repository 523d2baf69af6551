package path

import (
	"testing"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

func TestReporter(t *testing.T) {
	var r Reporter
	if r.Due(1) || r.NextNanos() != Never {
		t.Fatal("due with nothing received")
	}
	r.Arrived(1)
	if !r.Due(5) {
		t.Fatal("the first packet is not reported at once")
	}
	r.Sent(second)
	if r.Due(1000 * second) {
		t.Fatal("due with nothing new")
	}
	r.Arrived(1)
	if r.Due(second+IdleReportNanos-1) || !r.Due(second+IdleReportNanos) {
		t.Error("an idle lane reports after 250 ms")
	}
	r.Arrived(loadedPackets - 1)
	if r.Due(second+ReportNanos-1) || !r.Due(second+ReportNanos) {
		t.Error("a loaded lane reports after 20 ms")
	}
	r.Sent(2 * second)
	if r.NextNanos() != Never {
		t.Error("due after a report")
	}
}

// Two ends that report to each other come to rest.
func TestReportsEnd(t *testing.T) {
	var ends [2]Reporter
	ends[0].Arrived(1)
	reports := 0
	for now := int64(0); now < 100*second; now += 10 * millisecond {
		for i := range ends {
			if !ends[i].Due(now) {
				continue
			}
			reports++
			ends[i].Sent(now)
			if f := (lane.Frames{Set: lane.HasReport}); Reportable(&f) {
				ends[1-i].Arrived(1)
			}
		}
	}
	if reports != 1 {
		t.Errorf("%d reports on one packet", reports)
	}
}

func TestReportable(t *testing.T) {
	for _, c := range []struct {
		frames lane.Frames
		want   bool
	}{
		{lane.Frames{Set: lane.HasPing}, true},
		{lane.Frames{Datagram: lane.Datagram{Payload: []byte{1}}}, true},
		{lane.Frames{Set: lane.HasReport, Datagram: lane.Datagram{Payload: []byte{1}}}, true},
		{lane.Frames{Set: lane.HasReport}, false},
		{lane.Frames{Set: lane.HasPathChallenge | lane.HasPadding}, false},
		{lane.Frames{Set: lane.HasPathResponse}, false},
	} {
		if got := Reportable(&c.frames); got != c.want {
			t.Errorf("%b: %v", c.frames.Set, got)
		}
	}
}

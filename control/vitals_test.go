package control

import (
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

func TestVitals(t *testing.T) {
	type reading struct {
		after                time.Duration
		received, sent, lost uint64
		doubt                bool
	}
	for name, readings := range map[string][]reading{
		"busy and well": {
			{500 * time.Millisecond, 100, 100, 0, false}, {time.Second, 200, 200, 2, false}, {3 * time.Second, 400, 400, 9, false},
		},
		"idle": {
			{time.Second, 10, 10, 0, false}, {10 * time.Second, 10, 10, 0, false}, {17 * time.Second, 10, 10, 0, true},
		},
		"sends and hears nothing": {
			{time.Second, 10, 10, 0, false}, {2 * time.Second, 10, 12, 0, false}, {3100 * time.Millisecond, 10, 14, 0, true},
		},
		"hears, but most is lost": {
			{time.Second, 10, 10, 0, false}, {2 * time.Second, 20, 20, 5, false}, {4 * time.Second, 40, 40, 25, true},
		},
		"little is sent and lost": {
			{time.Second, 10, 10, 0, false}, {3 * time.Second, 12, 12, 2, false},
		},
	} {
		start := time.Now()
		v := vitals{heardAt: start, countedAt: start}
		for _, r := range readings {
			s := quic.ConnectionStats{PacketsReceived: r.received, PacketsSent: r.sent, PacketsLost: r.lost}
			if got := v.doubtful(start.Add(r.after), s); got != r.doubt {
				t.Errorf("%s: after %v: doubt %v", name, r.after, got)
			}
		}
	}
}

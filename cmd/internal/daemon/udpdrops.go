package daemon

import (
	"maps"
	"sync"

	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// udpDrops counts the datagrams that QUIC threw away before they reached a connection: garbage, unknown connections,
// floods. The library tells of them as qlog events and keeps no counters of its own.
type udpDrops struct {
	mu     sync.Mutex        // guards counts
	counts map[string]uint64 // by reason; the library has a dozen of them
}

var _ qlogwriter.Recorder = (*udpDrops)(nil)

func newUDPDrops() *udpDrops { return &udpDrops{counts: make(map[string]uint64)} }

// RecordEvent implements [qlogwriter.Recorder].
func (d *udpDrops) RecordEvent(e qlogwriter.Event) {
	if dropped, ok := e.(qlog.PacketDropped); ok {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.counts["udp_"+string(dropped.Trigger)]++
	}
}

// Close implements [qlogwriter.Recorder].
func (d *udpDrops) Close() error { return nil }

// addTo adds the counters to a status.
func (d *udpDrops) addTo(drops map[string]uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(drops, d.counts)
}

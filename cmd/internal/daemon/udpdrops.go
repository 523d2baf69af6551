package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"

	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

// udpDrops counts the datagrams that QUIC threw away: garbage, unknown connections and floods before they reached a
// connection, forged and replayed packets in one. The library tells of them as qlog events and keeps no counters.
type udpDrops struct {
	mu     sync.Mutex        // guards counts
	counts map[string]uint64 // by reason; the library has a dozen of them
}

var (
	_ qlogwriter.Recorder = (*udpDrops)(nil)
	_ qlogwriter.Trace    = (*udpDrops)(nil)
)

func newUDPDrops() *udpDrops { return &udpDrops{counts: make(map[string]uint64)} }

// RecordEvent implements [qlogwriter.Recorder].
func (d *udpDrops) RecordEvent(e qlogwriter.Event) {
	if dropped, ok := e.(qlog.PacketDropped); ok {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.counts["udp_"+string(dropped.Trigger)]++
	}
}

// AddProducer implements [qlogwriter.Trace]: all parts of all connections count together.
func (d *udpDrops) AddProducer() qlogwriter.Recorder { return d }

// trace makes connections of this configuration tell d what they drop.
func (d *udpDrops) trace(c *quic.Config) *quic.Config {
	traced := c.Clone()
	traced.Tracer = func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return d }
	if choose := c.GetConfigForClient; choose != nil {
		traced.GetConfigForClient = func(i *quic.ClientInfo) (*quic.Config, error) {
			chosen, err := choose(i)
			if err != nil {
				return nil, err
			}
			return d.trace(chosen), nil
		}
	}
	return traced
}

// tracedTransport dials connections that tell what they drop, and why they were not made if the socket knows.
type tracedTransport struct {
	*quic.Transport
	drops *udpDrops
	udp   *udp.Conn
}

// errNarrow is about a packet size that is worth no try.
var errNarrow = errors.New("packets of this size are too long for the path")

// Dial implements [control.Transport].
func (t tracedTransport) Dial(
	ctx context.Context, addr net.Addr, tlsConfig *tls.Config, config *quic.Config,
) (*quic.Conn, error) {
	to, ok := addr.(*net.UDPAddr)
	if ok && config.InitialPacketSize > masque.SmallestPacketSize && t.udp.InFragments(to.AddrPort()) {
		return nil, errNarrow // known to be so: a shorter one at once
	}
	conn, err := t.Transport.Dial(ctx, addr, tlsConfig, t.drops.trace(config))
	if ok && err != nil {
		if why := t.udp.PathError(to.AddrPort()); why != nil {
			err = fmt.Errorf("%w: %w", why, err)
		}
	}
	return conn, err
}

// Close implements [qlogwriter.Recorder].
func (d *udpDrops) Close() error { return nil }

// addTo adds the counters to a status.
func (d *udpDrops) addTo(drops map[string]uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(drops, d.counts)
}

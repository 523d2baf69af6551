package crowd

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/labtest"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

// sockets opens sockets on loopback in a namespace.
func sockets(n *lab.Namespace) func(context.Context) (*udp.Conn, error) {
	return func(ctx context.Context) (conn *udp.Conn, err error) {
		err = n.Do(func() error {
			conn, err = udp.Open(ctx, udp.Config{Address: netip.MustParseAddrPort("127.0.0.1:0")})
			return err
		})
		return conn, err
	}
}

// TestCrowd sees that active members have traffic in both directions of which nothing is dropped, and others none.
func TestCrowd(t *testing.T) {
	const peers, active = 60, 7
	c, err := Open(t.Context(), Config{Peers: peers, Active: active, Socket: sockets(labtest.Namespace(t, "crowd"))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, d := range []Direction{Up, Down} {
		flow, err := c.Run(t.Context(), d, 100*time.Millisecond)
		if err != nil || flow.Bytes == 0 {
			t.Errorf("%v: %+v, %v", d, flow, err)
		}
	}
	stats := c.Stats()
	for reason, count := range stats.Drops {
		if count > 0 {
			t.Errorf("%d packets dropped: %s", count, reason)
		}
	}
	busy := 0
	for id, p := range stats.Peers {
		if up, down := p.ReceivedPackets > 0, p.SentPackets > 0; up != down {
			t.Errorf("peer %x: %+v", id[28:], p)
		} else if up {
			busy++
		}
	}
	if len(stats.Peers) != peers || busy != active {
		t.Errorf("%d peers, %d of them busy", len(stats.Peers), busy)
	}
}

func TestCrowdOutOfBounds(t *testing.T) {
	for _, cfg := range []Config{{}, {Peers: 1}, {Active: 1}, {Peers: 1, Active: 2}, {Peers: MaxPeers + 1, Active: 1}} {
		if c, err := Open(t.Context(), cfg); err == nil {
			t.Errorf("%+v: got %v", cfg, c)
		}
	}
}

// TestMemory holds a further peer to the 64 KiB that it may take.
func TestMemory(t *testing.T) {
	const peers, mostBytes = 500, 64 << 10
	m, err := MeasureMemory(t.Context(), Config{Peers: peers, Active: 1, Socket: sockets(labtest.Namespace(t, "crowd"))})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", m)
	if m.Sum <= 0 || m.Sum > mostBytes || m.Spans > mostBytes {
		t.Errorf("a peer takes %.0f bytes, %.0f of spans; at most %d are allowed", m.Sum, m.Spans, mostBytes)
	}
}

// BenchmarkCrowd moves trains of 100 active members.
func BenchmarkCrowd(b *testing.B) {
	for _, peers := range []struct {
		name  string
		count int
	}{{"100", 100}, {"10000", 10_000}} {
		b.Run(peers.name, func(b *testing.B) {
			c, err := Open(b.Context(), Config{
				Peers: peers.count, Active: 100, Socket: sockets(labtest.Namespace(b, "crowd")),
			})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := c.Close(); err != nil {
					b.Error(err)
				}
			}()
			for _, d := range []Direction{Up, Down} {
				b.Run(d.String(), func(b *testing.B) { benchmarkFlow(b, c, d) })
			}
		})
	}
}

// benchmarkFlow takes a millisecond of traffic as its operation: the throughput is what it is about.
func benchmarkFlow(b *testing.B, c *Crowd, d Direction) {
	flow, err := c.Run(b.Context(), d, time.Duration(b.N)*time.Millisecond)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(flow.BitsPerSecond()/1e6, "Mbit/s")
}

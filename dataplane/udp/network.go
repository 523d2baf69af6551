package udp

import (
	"errors"
	"fmt"
	"net/netip"
)

// Network is what moves the datagrams of a Conn that has no socket: a simulated network in tests. What its methods do is
// said at those of Conn. It must be safe for concurrent use as Conn is.
type Network interface {
	Receive(ms []Message) (n int, err error)
	Send(b []byte, segmentBytes int, ecn uint8, to *Destination) error
	LocalAddr() netip.AddrPort
	Close() error
}

// OpenOn makes a Conn on a network. It carries lanes; what quic-go writes is errors.ErrUnsupported. Of cfg only
// QUICQueuePackets counts.
func OpenOn(n Network, cfg Config) (*Conn, error) {
	stats := &counters{}
	cfg.ReceiveBufferBytes, cfg.SendBufferBytes = -1, -1 // it has none to be sized
	return newConn(&networkBackend{Network: n, stats: stats}, cfg, stats)
}

// networkBackend makes a backend of a Network.
type networkBackend struct {
	Network
	stats *counters
}

var errNoSocket = fmt.Errorf("network without a socket: %w", errors.ErrUnsupported)

func (b *networkBackend) receive(ms []Message) (int, error) { return b.Receive(ms) }

func (b *networkBackend) send(p []byte, segmentBytes int, ecn uint8, to *Destination) error {
	if err := b.Send(p, segmentBytes, ecn, to); err != nil {
		return err
	}
	b.stats.sent(max(1, (len(p)+segmentBytes-1)/max(1, segmentBytes)), len(p))
	return nil
}

func (b *networkBackend) sendBatch(ms []Outgoing) (int, error) {
	for i := range ms {
		if err := sendOutgoing(b, b.stats, &ms[i]); err != nil {
			return i, err
		}
	}
	return len(ms), nil
}

func (*networkBackend) write([]byte, []byte, netip.AddrPort) error { return errNoSocket }

func (*networkBackend) descriptor(func(fd uintptr)) error { return errNoSocket }

func (*networkBackend) setBuffer(buffer, int) error { return nil }

func (*networkBackend) offloads() Offloads {
	no := Offload{Reason: "simulated network"}
	return Offloads{Segmentation: no, Coalescing: no, Batch: no}
}

func (b *networkBackend) local() netip.AddrPort { return b.LocalAddr() }

// families are both: which of them go anywhere is the network's affair.
func (*networkBackend) families() (ipv4, ipv6 bool) { return true, true }

func (b *networkBackend) close() error { return b.Close() }

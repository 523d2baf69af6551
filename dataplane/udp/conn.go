package udp

import (
	"context"
	"errors"
	"net/netip"
	"sync"
)

// Conn is a UDP socket with batches, shared between lanes and quic-go. Receive and Deliver belong to one goroutine at a
// time; everything else may be called from any. Open makes it, Close ends it.
type Conn struct {
	backend backend
	stats   *counters
	quic    *QUICConn
	close   sync.Once
	closed  error // of backend.close; read after close has run
}

// backend is how a system moves datagrams. What its methods do is said at those of Conn and QUICConn.
type backend interface {
	receive(ms []Message) (int, error)
	send(b []byte, segmentBytes int, ecn uint8, to *Destination) error
	sendBatch(ms []Outgoing) (int, error)
	// write sends for quic-go, with control messages of its own making. Errors are those of package net.
	write(b, control []byte, to netip.AddrPort) error
	// descriptor runs f with the descriptor, unless the socket is closed (net.ErrClosed).
	descriptor(f func(fd uintptr)) error
	// setBuffer sizes one of the two buffers; how far the kernel went is told by offloads.
	setBuffer(which buffer, bytes int) error
	offloads() Offloads
	local() netip.AddrPort
	// ipv4, ipv6 say which addresses the socket can send to.
	families() (ipv4, ipv6 bool)
	// close is called once. It returns after everything else has.
	close() error
}

// buffer is one of a socket's two.
type buffer int

const (
	receiveBuffer buffer = iota
	sendBuffer
)

// defaultBufferBytes is what quic-go asks for.
const defaultBufferBytes = 7 << 20

// Open opens a socket. DF is set on everything it sends, addresses and ECN are reported of everything that it receives
// (on systems other than Linux, DF once quic-go has taken it). The error is ErrPortInUse, ErrPermission, ErrAddress or
// ErrMark where that is the cause. A fast path that the system does not have is no error: see Offloads.
func Open(ctx context.Context, cfg Config) (*Conn, error) {
	stats := &counters{}
	b, err := openBackend(ctx, cfg, stats)
	if err != nil {
		return nil, err
	}
	return newSocketConn(b, cfg, stats)
}

// newSocketConn makes a Conn of a socket, with a twin if it can have one.
func newSocketConn(b backend, cfg Config, stats *counters) (*Conn, error) {
	c, err := newConn(b, cfg, stats)
	if err == nil {
		c.quic.twin, c.quic.noTwin = openTwin(cfg, b.local())
	}
	return c, err
}

func newConn(b backend, cfg Config, stats *counters) (*Conn, error) {
	c := &Conn{backend: b, stats: stats}
	c.quic = newQUICConn(b, cfg, stats)
	if err := c.quic.sizeBuffers(); err != nil {
		_ = b.close() // the first error says what is wrong
		return nil, err
	}
	return c, nil
}

// Receive waits for at least one message, and takes those that are there, at most len(ms) and MaxBatch: it fills
// ms[:n]. It writes to all of the capacity of their Data, which must be MaxReceiveBytes (else ErrShortBuffer), and owns
// none of it afterwards. After Close the error is ErrClosed; any other means that the socket is of no more use.
func (c *Conn) Receive(ms []Message) (n int, err error) {
	for i := range ms {
		if cap(ms[i].Data) < MaxReceiveBytes {
			return 0, ErrShortBuffer
		}
	}
	if len(ms) == 0 {
		return 0, nil
	}
	n, err = c.backend.receive(ms[:min(len(ms), MaxBatch)])
	if n > 0 {
		c.stats.received(ms[:n])
	}
	return n, err
}

// Send sends b to an address: as datagrams of segmentBytes, the last of which may be shorter, or as one datagram where
// segmentBytes is 0 or not less than len(b). ecn is the two bits of RFC 3168. Where the socket's buffer is full Send
// waits for room, until Close. It allocates nothing, and keeps nothing of b.
//
// The error is ErrClosed, ErrLost, a SizeError or a NoWayOutError; with any, datagrams at the front may have been sent
// and none behind them has. Any other error is one that nobody has foreseen: the datagrams are lost, the socket is as
// good as before. Where a network card or tunnel refuses UDP_SEGMENT in mid-flight Send switches it off for the socket
// and sends the datagrams one by one.
func (c *Conn) Send(b []byte, segmentBytes int, ecn uint8, to *Destination) error {
	if segmentBytes <= 0 || segmentBytes > len(b) {
		segmentBytes = len(b)
	}
	if segmentBytes > MaxSendBytes {
		c.stats.tooLong.Add(1)
		return SizeError(segmentBytes)
	}
	return c.backend.send(b, segmentBytes, ecn&ecnMask, to)
}

// SendBatch sends to different places, or in different sizes, with as few system calls as can be. It stops at the first
// message that fails: sent messages went out before it, and err is about ms[sent] (see Send). A caller that goes on goes
// on with ms[sent+1:].
func (c *Conn) SendBatch(ms []Outgoing) (sent int, err error) { return c.backend.sendBatch(ms) }

// Deliver queues copies of the datagrams of a message for quic-go, and drops and counts those without room.
func (c *Conn) Deliver(m *Message) { c.quic.deliver(m, m.Data, m.SegmentBytes) }

// DeliverDatagram is Deliver for one datagram of a message: lane packets and QUIC packets of the same peer and size may
// arrive in one message.
func (c *Conn) DeliverDatagram(m *Message, datagram []byte) {
	c.quic.deliver(m, datagram, len(datagram))
}

// QUIC returns the socket as quic-go's Transport wants it. It reads nothing but what is delivered, so the goroutine that
// receives must run before the first handshake.
func (c *Conn) QUIC() *QUICConn { return c.quic }

// Offloads returns which fast paths are in use at this time, and whether there are fragments.
func (c *Conn) Offloads() Offloads {
	o := c.backend.offloads()
	o.Fragments = c.quic.fragments()
	return o
}

// Stats returns the counters.
func (c *Conn) Stats() Stats { return c.stats.stats() }

// LocalAddr returns the address that the socket is bound to. That of a socket on all addresses of both families is ::.
func (c *Conn) LocalAddr() netip.AddrPort { return c.backend.local() }

// Close closes the socket, and ends what waits in it.
func (c *Conn) Close() error {
	c.close.Do(func() {
		c.quic.end()
		c.closed = errors.Join(c.backend.close(), c.quic.closeTwin())
	})
	return c.closed
}

package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
)

// portable moves one datagram per call, through package net.
type portable struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	stats *counters
	both  bool // of both families, where the host has IPv6
	// reason says why there is nothing better.
	reason  string
	closing atomic.Bool
	control [quicControlBytes]byte // the receiver's
}

func openPortable(ctx context.Context, cfg Config, stats *counters, reason string) (*portable, error) {
	conn, err := Listen(ctx, cfg)
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("descriptor of UDP socket: %w", err), conn.Close())
	}
	p := &portable{conn: conn, raw: raw, stats: stats, reason: reason, both: !cfg.Address.Addr().IsValid()}
	if err := setConnOptions(raw); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return p, nil
}

func (p *portable) receive(ms []Message) (int, error) {
	m := &ms[0]
	for {
		data := m.Data[:cap(m.Data)]
		n, controlBytes, _, from, err := p.conn.ReadMsgUDPAddrPort(data, p.control[:])
		switch {
		case err == nil:
			m.Data, m.From = data[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			m.parseControl(p.control[:controlBytes])
			return 1, nil
		case p.closing.Load() || !isPassing(err):
			return 0, p.closedOr("receive", err)
		}
		p.stats.receiveErrors.Add(1)
	}
}

// closedOr is the error of an operation, or ErrClosed if that is why.
func (p *portable) closedOr(operation string, err error) error {
	if p.closing.Load() {
		return ErrClosed
	}
	return fmt.Errorf("%s UDP: %w", operation, err)
}

// isPassing reports whether a receive failed with an error that the network sent in answer to something sent before, which
// says nothing about the socket.
func isPassing(err error) bool {
	errno, ok := errors.AsType[syscall.Errno](err)
	return ok && errno != syscall.EINVAL && (isNoWayOut(errno) || isTooLong(errno))
}

func (p *portable) send(b []byte, segmentBytes int, ecn uint8, to *Destination) error {
	for {
		n := min(segmentBytes, len(b))
		if err := p.sendOne(b[:n], to.control[ecn], to.to); err != nil {
			lost := 1
			if segmentBytes > 0 {
				lost = max(1, (len(b)+segmentBytes-1)/segmentBytes)
			}
			return p.stats.sendError(err, n, lost)
		}
		p.stats.sent(1, n)
		if b = b[n:]; len(b) == 0 {
			return nil
		}
	}
}

func (p *portable) sendOne(b, control []byte, to netip.AddrPort) error {
	_, _, err := p.conn.WriteMsgUDPAddrPort(b, control, to)
	if err != nil && p.closing.Load() {
		return ErrClosed
	}
	return err
}

func (p *portable) sendBatch(ms []Outgoing) (int, error) {
	for i := range ms {
		if err := sendOutgoing(p, p.stats, &ms[i]); err != nil {
			return i, err
		}
	}
	return len(ms), nil
}

// sendOutgoing sends one message of a batch by itself.
func sendOutgoing(b backend, stats *counters, m *Outgoing) error {
	segmentBytes := m.segmentBytes()
	if segmentBytes > MaxSendBytes {
		stats.tooLong.Add(1)
		return SizeError(segmentBytes)
	}
	return b.send(m.Data, segmentBytes, m.ECN&ecnMask, m.To)
}

func (p *portable) write(b, control []byte, to netip.AddrPort) error {
	_, _, err := p.conn.WriteMsgUDPAddrPort(b, control, to)
	return err
}

func (p *portable) descriptor(f func(fd uintptr)) error { return p.raw.Control(f) }

func (p *portable) setBuffer(which buffer, bytes int) error {
	return setConnBuffer(p.conn, p.raw, which, bytes)
}

func (p *portable) offloads() Offloads {
	no := Offload{Reason: p.reason}
	o := Offloads{Segmentation: no, Coalescing: no, Batch: no}
	o.ReceiveBufferBytes, o.SendBufferBytes = connBuffers(p.raw)
	return o
}

func (p *portable) local() netip.AddrPort {
	return p.conn.LocalAddr().(*net.UDPAddr).AddrPort() //nolint:forcetypeassert // a UDP socket
}

func (p *portable) families() (ipv4, ipv6 bool) {
	bound := p.local().Addr()
	return bound.Is4() || p.both, bound.Is6()
}

func (p *portable) close() error {
	p.closing.Store(true)
	if err := p.conn.Close(); err != nil {
		return fmt.Errorf("close UDP socket: %w", err)
	}
	return nil
}

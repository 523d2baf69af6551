package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Paced measures what becomes of UDP packets sent at an even pace in one direction, from the client to
// the server. For the other direction, put the server at the other end.
type Paced struct {
	Bytes            int           // UDP payload of each packet, at least 12; 0 is 64
	PacketsPerSecond float64       // 0 is as many as the sender can
	Duration         time.Duration // 0 is 2 s
}

// floodPackets is how many packets per second an unpaced sender prepares for.
const floodPackets = 2_000_000

// PacedResult is what became of the packets.
type PacedResult struct {
	Sent       int64 // taken by the kernel
	Refused    int64 // not taken, for want of a route or memory or because the peer refuses; not in Sent
	Received   int64 // arrived, each counted once
	Duplicates int64 // further copies
	Reordered  int64 // of Received, arrived behind one that was sent later
	// ReceiverDrops is how many arrived but did not fit the receiving socket: those say more of the
	// machine than of the path. They count as lost.
	ReceiverDrops int64
	Elapsed       time.Duration // from the first packet sent to the last
}

// Lost returns how many packets were sent and not received.
func (r PacedResult) Lost() int64 { return max(0, r.Sent-r.Received) }

// LossRatio returns the part of the packets sent that was lost, from 0 to 1.
func (r PacedResult) LossRatio() float64 {
	if r.Sent == 0 {
		return 0
	}
	return float64(r.Lost()) / float64(r.Sent)
}

// SentPerSecond returns the rate at which packets left; it falls short of the one asked for where the
// sender was too slow.
func (r PacedResult) SentPerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Sent) / r.Elapsed.Seconds()
}

// Run sends packets from the host to a [Server] and asks that what arrived.
func (p Paced) Run(ctx context.Context, host Host, server netip.AddrPort) (PacedResult, error) {
	if p.Bytes == 0 {
		p.Bytes = 64
	}
	if p.Duration == 0 {
		p.Duration = 2 * time.Second
	}
	result, err := p.run(ctx, host, server)
	if err != nil {
		return result, fmt.Errorf("paced UDP: %w", err)
	}
	return result, nil
}

func (p Paced) run(ctx context.Context, host Host, server netip.AddrPort) (result PacedResult, err error) {
	perSecond := p.PacketsPerSecond
	if perSecond == 0 {
		perSecond = floodPackets
	}
	packets := perSecond * p.Duration.Seconds()
	if p.Bytes < headerBytes || !(packets >= 1 && packets <= maxPackets) {
		return result, fmt.Errorf("cannot send %.0f packets of %d bytes", packets, p.Bytes)
	}
	r := request{kind: kindPaced, messageBytes: p.Bytes, packets: int(packets)}
	if err := r.check(); err != nil {
		return result, err
	}
	tcp, err := as[*net.TCPConn](dial(ctx, host, "tcp", server, ""))
	if err != nil {
		return result, err
	}
	const overhead = 30 * time.Second // for the request, the server's settling and the tally
	g := newGuard(ctx, tcp, 2*p.Duration+overhead)
	defer func() { err = g.end(err) }()
	session, err := openPaced(tcp, r)
	if err != nil {
		return result, err
	}
	if result, err = p.flood(ctx, host, server, session, r.packets); err != nil {
		return result, err
	}
	if err := tcp.CloseWrite(); err != nil {
		return result, err
	}
	t, err := readTally(tcp)
	result.Received, result.Duplicates, result.Reordered = t.received, t.duplicates, t.reordered
	result.ReceiverDrops = t.drops
	return result, err
}

func openPaced(tcp net.Conn, r request) (session uint32, err error) {
	if _, err := tcp.Write(r.encode()); err != nil {
		return 0, err
	}
	var answer [4]byte
	if _, err := io.ReadFull(tcp, answer[:]); err != nil {
		return 0, fmt.Errorf("open a session: %w", err)
	}
	return binary.BigEndian.Uint32(answer[:]), nil
}

// flood sends the packets of a session.
func (p Paced) flood(
	ctx context.Context, host Host, server netip.AddrPort, session uint32, packets int,
) (result PacedResult, err error) {
	conn, err := dialUDP(ctx, host, server)
	if err != nil {
		return result, err
	}
	g := newGuard(ctx, conn, 0)
	defer func() { err = g.end(err) }()
	out, err := newBatch(conn, sendBatch, p.Bytes, true)
	if err != nil {
		return result, err
	}
	limit := p.Duration
	if p.PacketsPerSecond > 0 {
		limit += maxSleep // the last packet is due at the very end
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errPaceOver)
	defer cancel()
	number := uint32(0)
	start := time.Now()
	pace := pacer{packets: packets, perSecond: p.PacketsPerSecond, send: func(n int) (int, error) {
		for i := range n {
			putHeader(out.buffers[i], pacedMagic, session, number+uint32(i))
		}
		sent, err := out.send(0, n)
		result.Sent += int64(sent)
		if err != nil && transient(err) {
			result.Refused++
			sent, err = sent+1, nil
		}
		number += uint32(sent)
		return sent, err
	}}
	err = pace.run(ctx)
	result.Elapsed = time.Since(start)
	if errors.Is(err, errPaceOver) {
		err = nil
	}
	return result, err
}

// errPaceOver ends a sender that is slower than its pace.
var errPaceOver = errors.New("the time for sending is over")

func dialUDP(ctx context.Context, host Host, server netip.AddrPort) (*net.UDPConn, error) {
	udp, err := as[*net.UDPConn](dial(ctx, host, "udp", server, ""))
	if err != nil {
		return nil, err
	}
	raw, err := udp.SyscallConn()
	if err == nil {
		err = onDescriptor(raw, enlargeBuffers)
	}
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return udp, nil
}

package masque

import (
	"context"
	"errors"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// PacketSizeFallbackDelay is how long a handshake with the preferred packet size may
// go unanswered before one with the smallest starts beside it. Three times the
// longest round trip that is common.
const PacketSizeFallbackDelay = time.Second

// DialPacketSizes makes a QUIC connection on a path of unknown size. It calls dial
// with LargestPacketSize and, if that fails for a reason a smaller packet may cure
// or takes longer than PacketSizeFallbackDelay, with PreferredPacketSize and then
// SmallestPacketSize as well. The first connection wins, the other attempts are
// cancelled. dial makes the connection with QUICConfig(size) and may be called
// several times at once.
//
// It returns after every dial has. An error of the peer's, such as a refused
// certificate, is final.
func DialPacketSizes(
	ctx context.Context, dial func(ctx context.Context, size uint16) (*quic.Conn, error),
) (*quic.Conn, uint16, error) {
	return dialSizes(ctx, packetSizes(), dial, func(c *quic.Conn) {
		// The loser of the race has no user; it is gone either way.
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	})
}

// dialSizes is DialPacketSizes for any kind of connection.
func dialSizes[C any](
	ctx context.Context, sizes []uint16, dial func(context.Context, uint16) (C, error), discard func(C),
) (conn C, size uint16, err error) {
	type result struct {
		conn C
		size uint16
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(sizes))
	started, finished := 0, 0
	start := func() {
		size := sizes[started]
		started++
		go func() {
			conn, err := dial(ctx, size)
			results <- result{conn, size, err}
		}()
	}
	delay := time.NewTimer(PacketSizeFallbackDelay)
	defer delay.Stop()
	won := false
	for start(); finished < started; {
		select {
		case <-delay.C:
			if started < len(sizes) && !won && ctx.Err() == nil {
				start()
				delay.Reset(PacketSizeFallbackDelay)
			}
		case r := <-results:
			finished++
			switch {
			case r.err == nil && won:
				discard(r.conn)
			case r.err == nil:
				conn, size, won = r.conn, r.size, true
				cancel()
			case won || ctx.Err() != nil && err != nil:
				// Ended by cancel.
			case !sizeMayCure(ctx, r.err):
				err = r.err
				cancel()
			default:
				err = r.err
				if started < len(sizes) {
					start()
				}
			}
		}
	}
	if won {
		return conn, size, nil
	}
	return conn, 0, err
}

// sizeMayCure reports whether a failed handshake may succeed with smaller packets:
// not if the caller gave up, the peer has answered or its certificate was refused.
// quic-go hides a failed write (EMSGSIZE) in an INTERNAL_ERROR of its own that does not
// unwrap to it.
func sizeMayCure(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	var transport *quic.TransportError
	if errors.As(err, &transport) {
		return !transport.Remote && transport.ErrorCode == quic.InternalError
	}
	var application *quic.ApplicationError
	var version *quic.VersionNegotiationError
	var reset *quic.StatelessResetError
	return !errors.As(err, &application) && !errors.As(err, &version) && !errors.As(err, &reset)
}

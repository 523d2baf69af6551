package portmap

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"
)

const (
	// maxDatagramBytes is above what any of the protocols may send; what is longer is cut and fails to parse.
	maxDatagramBytes = 2048
	// maxStrayDatagrams ends an exchange that somebody floods.
	maxStrayDatagrams = 256
)

// dialFunc opens a datagram connection to the router, over which only the router's datagrams arrive.
type dialFunc func(ctx context.Context) (net.Conn, error)

// retransmission gives how long to wait after the n-th transmission (from 0); false ends the exchange.
type retransmission func(attempt int) (time.Duration, bool)

// pcpRetransmission follows RFC 6887 section 8.1.1: three seconds, doubled each time, each with a random
// tenth more or less. Three transmissions suffice on a LAN, so that the longest exchange takes 21 seconds and
// a bit.
func pcpRetransmission() retransmission {
	const (
		initial  = 3 * time.Second
		attempts = 3
	)
	previous := time.Duration(0)
	return func(attempt int) (time.Duration, bool) {
		base := 2 * previous
		if attempt == 0 {
			base = initial
		}
		previous = base + time.Duration((rand.Float64()*0.2-0.1)*float64(base))
		return previous, attempt < attempts
	}
}

// natpmpRetransmission follows RFC 6886 section 3.1: a quarter of a second, doubled each time; six
// transmissions instead of nine, so that the longest exchange takes 16 seconds.
func natpmpRetransmission() retransmission {
	const (
		initial  = 250 * time.Millisecond
		attempts = 6
	)
	return func(attempt int) (time.Duration, bool) {
		return initial << min(attempt, attempts), attempt < attempts
	}
}

// exchange sends request until accept takes an answer. accept reports false for a datagram that is not an
// answer to this request; its error ends the exchange.
func exchange(ctx context.Context, dial dialFunc, request []byte, wait retransmission,
	accept func([]byte) (bool, error),
) (err error) {
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// A deadline in the past is the one thing that ends a blocked call at once.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, maxDatagramBytes)
	strays := 0
	for attempt := 0; ; attempt++ {
		pause, more := wait(attempt)
		if !more {
			return errNoAnswer
		}
		if err := conn.SetDeadline(time.Now().Add(pause)); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := conn.Write(request); err != nil {
			return answerError(ctx, err)
		}
		done, err := readAnswer(conn, buf, &strays, accept)
		switch {
		case done:
			return err
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil:
			continue
		default:
			return answerError(ctx, err)
		}
	}
}

// readAnswer reads until accept takes a datagram, which done reports, or reading fails.
func readAnswer(conn net.Conn, buf []byte, strays *int, accept func([]byte) (bool, error),
) (done bool, err error) {
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return false, err
		}
		taken, err := accept(buf[:n])
		if taken || err != nil {
			return true, err
		}
		if *strays++; *strays > maxStrayDatagrams {
			return true, fmt.Errorf("%w: more than %d stray datagrams", errNoAnswer, maxStrayDatagrams)
		}
	}
}

// answerError makes "connection refused", which an ICMP message causes, and a timeout both mean that nobody
// answers.
func answerError(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	if isRefused(err) || errors.Is(err, os.ErrDeadlineExceeded) {
		return errNoAnswer
	}
	return err
}

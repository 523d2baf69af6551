package traffic

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Echo measures round trips of requests that the server returns as they are. The zero value sends over
// UDP, the next request as soon as the last one is answered.
type Echo struct {
	Network   string        // "udp" or "tcp"; "" is udp
	Bytes     int           // payload of each request, at least 20; 0 is 64
	PerSecond float64       // requests per second, whether answered or not; 0 is one after the other
	Duration  time.Duration // how long requests are sent; 0 is 2 s
	// Timeout is how long an answer may take before it counts as lost: with PerSecond 0 each, otherwise
	// those missing after the last request was sent; 0 is 1 s. One after the other over TCP, an answer
	// that takes longer is an error.
	Timeout time.Duration
}

// maxSamples bounds the memory of a result.
const maxSamples = 16 << 20

// EchoResult is what became of the requests.
type EchoResult struct {
	Sent       int64 // tried; a request that the kernel refuses is lost
	Received   int64 // answered in time, each counted once
	Duplicates int64 // further answers
	Reordered  int64 // of Received, answered behind a later request
	RTT        Distribution
}

// Lost returns how many requests were not answered in time.
func (r EchoResult) Lost() int64 { return r.Sent - r.Received }

// LossRatio returns the part of the requests that was not answered in time, from 0 to 1.
func (r EchoResult) LossRatio() float64 {
	if r.Sent == 0 {
		return 0
	}
	return float64(r.Lost()) / float64(r.Sent)
}

// Run sends requests from the host to a [Server].
func (e Echo) Run(ctx context.Context, host Host, server netip.AddrPort) (EchoResult, error) {
	e = e.withDefaults()
	result, err := e.run(ctx, host, server)
	if err != nil {
		return result, fmt.Errorf("%s echo: %w", e.Network, err)
	}
	return result, nil
}

func (e Echo) withDefaults() Echo {
	if e.Network == "" {
		e.Network = "udp"
	}
	if e.Bytes == 0 {
		e.Bytes = 64
	}
	if e.Duration == 0 {
		e.Duration = 2 * time.Second
	}
	if e.Timeout == 0 {
		e.Timeout = time.Second
	}
	return e
}

func (e Echo) check() error {
	switch {
	case e.Network != "udp" && e.Network != "tcp":
		return fmt.Errorf("no such network %q", e.Network)
	case e.Bytes < echoBytes || e.Bytes > maxMessageBytes:
		return fmt.Errorf("requests of %d bytes, want %d to %d", e.Bytes, echoBytes, maxMessageBytes)
	case e.PerSecond < 0 || e.PerSecond*e.Duration.Seconds() > maxSamples:
		return fmt.Errorf("%v requests per second for %v, want at most %d in all",
			e.PerSecond, e.Duration, maxSamples)
	}
	return nil
}

func (e Echo) run(ctx context.Context, host Host, server netip.AddrPort) (result EchoResult, err error) {
	if err := e.check(); err != nil {
		return result, err
	}
	conn, err := dial(ctx, host, e.Network, server, "")
	if err != nil {
		return result, err
	}
	const overhead = 10 * time.Second
	g := newGuard(ctx, conn, 2*e.Duration+e.Timeout+overhead)
	defer func() { err = g.end(err) }()
	if e.Network == "tcp" {
		if _, err := conn.Write(request{kind: kindEcho, messageBytes: e.Bytes}.encode()); err != nil {
			return result, err
		}
	}
	x := newExchange(e, conn)
	if e.PerSecond == 0 {
		err = x.pingPong(ctx)
	} else {
		err = x.openLoop(ctx)
	}
	return x.result(), err
}

// exchange is one run of an Echo.
type exchange struct {
	Echo
	conn    net.Conn
	session uint32
	epoch   time.Time
	sent    int64 // by the sending goroutine

	requests atomic.Int64 // how many were sent, once all are

	// What follows is the receiving goroutine's.
	sequence *sequence
	samples  []time.Duration
	partial  int // bytes read of the next answer over TCP
}

func newExchange(e Echo, conn net.Conn) *exchange {
	requests := maxSamples
	if e.PerSecond > 0 {
		requests = max(1, int(e.PerSecond*e.Duration.Seconds()))
	}
	var session [4]byte // tells the answers to one run from those to another
	rand.Read(session[:])
	return &exchange{
		Echo: e, conn: conn, session: binary.BigEndian.Uint32(session[:]),
		epoch: time.Now(), sequence: newSequence(requests),
	}
}

// result is for after both goroutines have ended.
func (x *exchange) result() EchoResult {
	return EchoResult{
		Sent: x.sent, Received: x.sequence.received, Duplicates: x.sequence.duplicates,
		Reordered: x.sequence.reordered, RTT: NewDistribution(x.samples),
	}
}

// pingPong sends the next request when the last one is answered or counts as lost. The first goes out
// even if its goroutine was kept from running for the whole duration.
func (x *exchange) pingPong(ctx context.Context) error {
	out, in := make([]byte, x.Bytes), make([]byte, maxMessageBytes)
	for number := uint32(0); number == 0 || time.Since(x.epoch) < x.Duration; number++ {
		if number == x.sequence.packets {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := x.write(out, number); err != nil {
			return err
		}
		if err := x.conn.SetReadDeadline(time.Now().Add(x.Timeout)); err != nil {
			return err
		}
		if err := x.awaitAnswer(in, number); err != nil {
			return err
		}
	}
	return nil
}

// awaitAnswer reads until the answer to a request or the deadline; what comes late for earlier ones
// does not count.
func (x *exchange) awaitAnswer(in []byte, number uint32) error {
	for {
		answer, rtt, err := x.read(in)
		if x.Network == "udp" && errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if answer == number {
			x.count(answer, rtt)
			return nil
		}
	}
}

// openLoop sends requests at their rate and takes the answers meanwhile.
func (x *exchange) openLoop(ctx context.Context) error {
	both, ctx := errgroup.WithContext(ctx)
	both.Go(x.takeAnswers)
	both.Go(func() error {
		out := make([]byte, x.Bytes)
		sending, cancel := context.WithTimeoutCause(ctx, x.Duration+maxSleep, errPaceOver)
		defer cancel()
		pace := pacer{packets: int(x.sequence.packets), perSecond: x.PerSecond, send: func(int) (int, error) {
			return 1, x.write(out, uint32(x.sent))
		}}
		err := pace.run(sending)
		if errors.Is(err, errPaceOver) {
			err = nil
		}
		x.requests.Store(x.sent)
		return errors.Join(err, x.conn.SetReadDeadline(time.Now())) // wakes the receiver up
	})
	return both.Wait()
}

// takeAnswers reads until the last request has been sent and every one is answered or late.
func (x *exchange) takeAnswers() error {
	in := make([]byte, maxMessageBytes)
	for sending := true; sending || x.sequence.received < x.requests.Load(); {
		number, rtt, err := x.read(in)
		switch {
		case err == nil:
			x.count(number, rtt)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case !sending:
			return nil
		default:
			sending = false
			if err := x.conn.SetReadDeadline(time.Now().Add(x.Timeout)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *exchange) count(number uint32, rtt time.Duration) {
	if x.sequence.add(number) {
		x.samples = append(x.samples, rtt)
	}
}

// write sends a request. Over UDP one that the kernel refuses for reasons of the path is as good as
// lost.
func (x *exchange) write(buffer []byte, number uint32) error {
	putHeader(buffer, echoMagic, x.session, number)
	binary.BigEndian.PutUint64(buffer[headerBytes:], uint64(time.Since(x.epoch)))
	x.sent++
	_, err := x.conn.Write(buffer)
	if x.Network == "udp" && transient(err) {
		return nil
	}
	return err
}

// read takes an answer of this exchange and returns its number.
func (x *exchange) read(buffer []byte) (number uint32, rtt time.Duration, err error) {
	for {
		n, err := x.readMessage(buffer)
		now := time.Since(x.epoch)
		if err != nil {
			if x.Network == "udp" && transient(err) {
				continue
			}
			return 0, 0, err
		}
		magic, session, number, ok := header(buffer[:n])
		if ok && n == x.Bytes && magic == echoMagic && session == x.session {
			sent := time.Duration(binary.BigEndian.Uint64(buffer[headerBytes:]))
			return number, now - sent, nil
		}
		if x.Network == "tcp" {
			return 0, 0, errors.New("the answer is not the request")
		}
	}
}

// readMessage reads one answer. Over TCP a deadline may come in the middle of one, which the next call
// goes on with.
func (x *exchange) readMessage(buffer []byte) (int, error) {
	if x.Network == "udp" {
		return x.conn.Read(buffer)
	}
	for x.partial < x.Bytes {
		n, err := x.conn.Read(buffer[x.partial:x.Bytes])
		x.partial += n
		if err != nil {
			return 0, err
		}
	}
	x.partial = 0
	return x.Bytes, nil
}

package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// Bulk measures how fast TCP carries bytes. The zero value sends one stream for 5 seconds.
type Bulk struct {
	Streams    int           // how many at a time; 0 is 1
	Duration   time.Duration // how long the sender sends; 0 is 5 s
	Download   bool          // the server sends, not the client
	Congestion string        // TCP congestion control of the sender; "" is cubic
	Interval   time.Duration // length of the intervals in the result; 0 is 100 ms
	// DrainTimeout is how long after Duration the last bytes and the report may arrive before that is an
	// error; 0 is 15 s.
	DrainTimeout time.Duration
}

// BulkResult is what arrived, as the receiver saw it.
type BulkResult struct {
	Bytes    int64         // of all streams
	Elapsed  time.Duration // until the last byte of the last stream
	Interval time.Duration
	// IntervalBytes are the bytes that arrived in each interval since the start; they show stalls and
	// ramps.
	IntervalBytes []int64
}

// BitsPerSecond returns the mean rate of all streams together, in bits of payload.
func (r BulkResult) BitsPerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Bytes) * 8 / r.Elapsed.Seconds()
}

// Run connects from the host to a [Server] and measures. The result of a run that fails holds what
// arrived on streams that did not.
func (b Bulk) Run(ctx context.Context, host Host, server netip.AddrPort) (BulkResult, error) {
	b = b.withDefaults()
	r := request{kind: kindUpload, duration: b.Duration, interval: b.Interval, congestion: b.Congestion}
	if b.Download {
		r.kind = kindDownload
	}
	result := BulkResult{Interval: b.Interval}
	if err := r.check(); err != nil {
		return result, fmt.Errorf("bulk TCP: %w", err)
	}
	meters := make([]meter, b.Streams)
	streams, ctx := errgroup.WithContext(ctx)
	for i := range meters {
		streams.Go(func() error {
			m, err := b.stream(ctx, host, server, r)
			meters[i] = m
			return err
		})
	}
	err := streams.Wait()
	for _, m := range meters {
		result.add(m)
	}
	if err != nil {
		return result, fmt.Errorf("bulk TCP: %w", err)
	}
	return result, nil
}

func (b Bulk) withDefaults() Bulk {
	if b.Streams == 0 {
		b.Streams = 1
	}
	if b.Duration == 0 {
		b.Duration = 5 * time.Second
	}
	if b.Congestion == "" {
		b.Congestion = defaultCongestion
	}
	if b.Interval == 0 {
		b.Interval = max(100*time.Millisecond, b.Duration/(maxIntervals/4))
	}
	if b.DrainTimeout == 0 {
		b.DrainTimeout = 15 * time.Second
	}
	return b
}

func (r *BulkResult) add(m meter) {
	r.Bytes += m.bytes
	r.Elapsed = max(r.Elapsed, m.elapsed)
	for i, bytes := range m.intervals {
		if i == len(r.IntervalBytes) {
			r.IntervalBytes = append(r.IntervalBytes, 0)
		}
		r.IntervalBytes[i] += bytes
	}
}

// stream runs one of the streams.
func (b Bulk) stream(ctx context.Context, host Host, server netip.AddrPort, r request) (m meter, err error) {
	conn, err := as[*net.TCPConn](dial(ctx, host, "tcp", server, b.Congestion))
	if err != nil {
		return meter{}, err
	}
	g := newGuard(ctx, conn, b.Duration+b.DrainTimeout)
	defer func() { err = g.end(err) }()
	if _, err := conn.Write(r.encode()); err != nil {
		return meter{}, err
	}
	if b.Download {
		m, err = receive(conn, b.Interval)
		if err == nil && m.bytes == 0 {
			err = errors.New("the server sent nothing")
		}
		return m, err
	}
	if err := sendFor(conn, b.Duration); err != nil {
		return meter{}, err
	}
	return readReport(conn, b.Interval)
}

// sendFor writes to a connection for a time and shuts down its sending half. The write deadline stays
// that of the last write, so nothing can be written after it.
func sendFor(conn *net.TCPConn, duration time.Duration) error {
	end := time.Now().Add(duration)
	if err := conn.SetWriteDeadline(end); err != nil {
		return err
	}
	buffer := make([]byte, streamBufferBytes)
	for {
		_, err := conn.Write(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(end) {
			return conn.CloseWrite()
		}
		if err != nil {
			return err
		}
	}
}

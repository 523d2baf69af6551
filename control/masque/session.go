package masque

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
)

// Stream is the request stream of a session after the 2xx answer. *http3.Stream
// and *http3.RequestStream are such streams.
type Stream interface {
	io.ReadWriteCloser
	StreamID() quic.StreamID
	CancelRead(quic.StreamErrorCode)
	CancelWrite(quic.StreamErrorCode)
	SetWriteDeadline(time.Time) error
	// SendDatagram and ReceiveDatagram carry HTTP datagram payloads, without the
	// quarter stream ID.
	SendDatagram([]byte) error
	ReceiveDatagram(context.Context) ([]byte, error)
}

var (
	_ Stream = (*http3.Stream)(nil)
	_ Stream = (*http3.RequestStream)(nil)
)

const (
	// maxQueuedCapsules is how many capsules wait for a peer that does not read.
	maxQueuedCapsules = 64
	// maxPendingEchoes is how many Pings may wait at once.
	maxPendingEchoes = 16
	// closeFlush is how long Close lets the queued capsules and the end of the
	// stream wait for flow control.
	closeFlush = time.Second
)

// Session is one CONNECT-IP session, the same at both ends. Its methods may be
// called from any goroutine. Run has to be running for capsules to be sent and
// received; packets need nothing but the stream. A session ends by Close, by the
// end of Run's context, by the peer or with its connection; it is not reused.
type Session struct {
	str Stream
	// framingBytes is what stands before a packet in a DATAGRAM frame: quarter
	// stream ID and context ID.
	framingBytes int

	counters  counters
	ended     atomic.Bool  // set with cause; spares the packet path the lock
	maxPacket atomic.Int64 // last known limit, bytes

	sendMu  sync.Mutex
	sendBuf []byte // context ID and one packet; guarded by sendMu

	wake chan struct{} // capacity 1: the queue or cause changed
	done chan struct{} // closed with cause

	mu        sync.Mutex
	running   bool
	queue     [][]byte // whole capsules
	cause     error    // why the session ended, nil before and after Close
	orderly   bool     // the writer has to finish the stream
	requestID uint64
	echoes    map[uint64]chan struct{}
}

// NewSession wraps a stream whose request was accepted. [Dial] and [Handler] call
// it; it is exported for carriers of another kind and for tests.
func NewSession(str Stream) *Session {
	s := &Session{
		str:          str,
		framingBytes: quicvarint.Len(uint64(str.StreamID()/4)) + contextIDBytes,
		sendBuf:      make([]byte, contextIDBytes+maxSendBytes),
		wake:         make(chan struct{}, 1),
		done:         make(chan struct{}),
		echoes:       make(map[uint64]chan struct{}),
	}
	s.maxPacket.Store(int64(SmallestPacketSize) - quicOverheadBytes - int64(s.framingBytes))
	return s
}

// AssignAddresses queues an ADDRESS_ASSIGN: the whole list of what the peer may use
// as source from now on. See [Assign]. It returns ErrBacklog, ErrClosed or the
// fault in the list.
func (s *Session) AssignAddresses(a AddressAssignment) error {
	body, err := AppendAddressAssign(nil, a)
	if err != nil {
		return err
	}
	return s.enqueue(capsuleAddressAssign, body)
}

// RequestAddresses queues an ADDRESS_REQUEST for the given prefixes and returns the
// IDs under which they will be answered, in the same order. An unspecified address
// asks for any of its family. [Dial] has asked for one of each family already.
func (s *Session) RequestAddresses(prefixes []netip.Prefix) ([]uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var r AddressRequest
	ids := make([]uint64, len(prefixes))
	for i, p := range prefixes {
		ids[i] = s.requestID + uint64(i) + 1
		r.Requests = append(r.Requests, RequestedAddress{RequestID: ids[i], Prefix: p})
	}
	body, err := AppendAddressRequest(nil, r)
	if err != nil {
		return nil, err
	}
	if err := s.enqueueLocked(capsuleAddressRequest, body); err != nil {
		return nil, err
	}
	s.requestID += uint64(len(prefixes))
	return ids, nil
}

// AdvertiseRoutes queues a ROUTE_ADVERTISEMENT for all protocols: the whole list of
// what this end routes for the peer from now on. None withdraws all.
func (s *Session) AdvertiseRoutes(prefixes []netip.Prefix) error {
	ranges, err := PrefixesToRanges(prefixes)
	if err != nil {
		return err
	}
	return s.AdvertiseRanges(ranges)
}

// AdvertiseRanges is AdvertiseRoutes for ranges that are in order already; see
// [NormalizeRanges].
func (s *Session) AdvertiseRanges(ranges []IPRange) error {
	body, err := AppendRouteAdvertisement(nil, RouteAdvertisement{Ranges: ranges})
	if err != nil {
		return err
	}
	if len(body) > MaxCapsuleBytes {
		return fmt.Errorf("route advertisement of %d bytes: %w", len(body), errExcessive)
	}
	return s.enqueue(capsuleRouteAdvertisement, body)
}

// SendPrivate queues a capsule of one of the private types. The payload of a
// report begins with its kind, FirstFreeReportKind or higher.
func (s *Session) SendPrivate(t CapsuleType, payload []byte) error {
	if !t.private() {
		return fmt.Errorf("capsule type %#x is not private", uint64(t))
	}
	if t == CapsuleReport && reservedReport(payload) {
		return errReservedReport
	}
	return s.sendPrivate(t, payload)
}

func (s *Session) sendPrivate(t CapsuleType, payload []byte) error {
	body, err := AppendPrivate(nil, payload)
	if err != nil {
		return err
	}
	return s.enqueue(t, body)
}

// Ping sends an echo request with 0 to MaxPingPadding bytes of padding and waits for its
// answer, which has as many. It returns the round trip, flow control and both ends'
// queues included, or the context's error: a peer that does not know echoes ignores
// them. At most 16 Pings may wait at once.
//
// A small echo passes paths that lose every full packet; quic-go does not notice such
// a path and never goes below its InitialPacketSize. With MaxPingPadding both sides
// send at least one full packet, so that no answer means no full packets. An echo that
// does not pass holds up all capsules behind it, since they share a stream.
func (s *Session) Ping(ctx context.Context, paddingBytes int) (time.Duration, error) {
	if paddingBytes < 0 || paddingBytes > MaxPingPadding {
		return 0, fmt.Errorf("ping with %d bytes of padding: %w", paddingBytes, errExcessive)
	}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return 0, fmt.Errorf("ping: %w", err)
	}
	id := binary.BigEndian.Uint64(random[:])
	answered := make(chan struct{})
	s.mu.Lock()
	if len(s.echoes) >= maxPendingEchoes {
		s.mu.Unlock()
		return 0, fmt.Errorf("ping: %w", ErrBacklog)
	}
	s.echoes[id] = answered
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.echoes, id)
		s.mu.Unlock()
	}()

	start := time.Now()
	request := echo{reportEchoRequest, id, paddingBytes}
	if err := s.sendPrivate(CapsuleReport, request.payload()); err != nil {
		return 0, fmt.Errorf("ping: %w", err)
	}
	select {
	case <-answered:
		return time.Since(start), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("ping: %w", context.Cause(ctx))
	case <-s.done:
		return 0, fmt.Errorf("ping: %w", s.closedError())
	}
}

// Done is closed when the session has ended, by whatever cause.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close ends the session in order: queued capsules and the end of the stream are
// sent by Run, which then returns nil, within one second even if the peer does not
// read. Without a running Run, queued capsules are dropped. It does not wait and
// does not close the QUIC connection. Only the first end counts.
func (s *Session) Close() error {
	return s.endOrderly(nil)
}

// Abort ends the session at once by resetting the stream in both directions with
// the given code, for example http3.ErrCodeNoError. RFC 9484 section 10.1 asks for
// this when a session that conveys IPv6 falls below [MinIPv6PacketSize]. Run
// returns cause.
func (s *Session) Abort(code http3.ErrCode, cause error) {
	if cause == nil {
		cause = ErrClosed
	}
	s.abort(code, cause)
}

// enqueue queues one capsule for the writer.
func (s *Session) enqueue(t CapsuleType, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.enqueueLocked(t, body)
}

func (s *Session) enqueueLocked(t CapsuleType, body []byte) error {
	if s.ended.Load() {
		return s.closedErrorLocked()
	}
	if len(s.queue) >= maxQueuedCapsules {
		s.counters.capsulesBacklogged.Add(1)
		return ErrBacklog
	}
	s.queue = append(s.queue, appendCapsule(nil, t, body))
	s.wakeWriter()
	return nil
}

func (s *Session) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// closedError says why the session is over; it matches ErrClosed.
func (s *Session) closedError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closedErrorLocked()
}

func (s *Session) closedErrorLocked() error {
	if s.cause == nil || errors.Is(s.cause, ErrClosed) {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrClosed, s.cause)
}

// takeQueue empties the queue and says, as of the same moment, whether the session has been aborted or has to be finished
// in order.
func (s *Session) takeQueue() (batch []byte, capsules int, aborted, orderly bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch, capsules = slices.Concat(s.queue...), len(s.queue)
	s.queue = s.queue[:0]
	return batch, capsules, s.ended.Load() && !s.orderly, s.orderly
}

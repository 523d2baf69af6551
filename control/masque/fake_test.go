package masque

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// half is one direction of a fake stream: what one end writes and the other reads.
type half struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced on every change
	data     []byte
	window   int // bytes the writer may have outstanding
	fin      bool
	reset    *quic.StreamError // by the writer
	stopped  *quic.StreamError // by the reader
	deadline time.Time
}

func newHalf() *half { return &half{changed: make(chan struct{}), window: 1 << 20} }

func (h *half) changeLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) read(b []byte) (int, error) {
	for {
		h.mu.Lock()
		switch {
		case h.stopped != nil:
			h.mu.Unlock()
			return 0, remote(h.stopped, false)
		case h.reset != nil:
			h.mu.Unlock()
			return 0, remote(h.reset, true)
		case len(h.data) > 0:
			n := copy(b, h.data)
			h.data = h.data[n:]
			h.changeLocked()
			h.mu.Unlock()
			return n, nil
		case h.fin:
			h.mu.Unlock()
			return 0, io.EOF
		}
		changed := h.changed
		h.mu.Unlock()
		<-changed
	}
}

func (h *half) write(b []byte) (n int, err error) {
	for {
		h.mu.Lock()
		switch {
		case h.fin:
			h.mu.Unlock()
			return n, errors.New("write on closed stream")
		case h.reset != nil:
			h.mu.Unlock()
			return n, remote(h.reset, false)
		case h.stopped != nil:
			h.mu.Unlock()
			return n, remote(h.stopped, true)
		}
		room := min(h.window-len(h.data), len(b))
		h.data = append(h.data, b[:room]...)
		n, b = n+room, b[room:]
		h.changeLocked()
		changed, deadline := h.changed, h.deadline
		h.mu.Unlock()
		if len(b) == 0 {
			return n, nil
		}
		var expired <-chan time.Time
		if !deadline.IsZero() {
			expired = time.After(time.Until(deadline))
		}
		select {
		case <-changed:
		case <-expired:
			return n, os.ErrDeadlineExceeded
		}
	}
}

// remote is how http3 reports a reset.
func remote(e *quic.StreamError, byPeer bool) error {
	return &http3.Error{Remote: byPeer, ErrorCode: http3.ErrCode(e.ErrorCode)}
}

// fakeStream is one end of an in-memory request stream.
type fakeStream struct {
	id          quic.StreamID
	in, out     *half
	toPeer      chan []byte
	fromPeer    chan []byte
	maxDatagram int64 // of the DATAGRAM frame, as quic-go counts
	sendErr     error
}

// newFakePair returns two connected streams with the given ID.
func newFakePair(id quic.StreamID) (client, server *fakeStream) {
	up, down := newHalf(), newHalf()
	a, b := make(chan []byte, 64), make(chan []byte, 64)
	return &fakeStream{id: id, in: down, out: up, toPeer: a, fromPeer: b, maxDatagram: 1243},
		&fakeStream{id: id, in: up, out: down, toPeer: b, fromPeer: a, maxDatagram: 1243}
}

func (f *fakeStream) StreamID() quic.StreamID           { return f.id }
func (f *fakeStream) Read(b []byte) (int, error)        { return f.in.read(b) }
func (f *fakeStream) Write(b []byte) (int, error)       { return f.out.write(b) }
func (f *fakeStream) CancelRead(c quic.StreamErrorCode) { f.in.end(&f.in.stopped, c) }

func (f *fakeStream) CancelWrite(c quic.StreamErrorCode) { f.out.end(&f.out.reset, c) }

func (h *half) end(how **quic.StreamError, code quic.StreamErrorCode) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if *how == nil {
		*how = &quic.StreamError{ErrorCode: code}
		h.changeLocked()
	}
}

func (f *fakeStream) Close() error {
	f.out.mu.Lock()
	defer f.out.mu.Unlock()
	f.out.fin = true
	f.out.changeLocked()
	return nil
}

func (f *fakeStream) SetWriteDeadline(t time.Time) error {
	f.out.mu.Lock()
	defer f.out.mu.Unlock()
	f.out.deadline = t
	f.out.changeLocked()
	return nil
}

// stop waits until the reader of h has stopped it, and returns the code.
func (h *half) waitStopped() quic.StreamErrorCode {
	for {
		h.mu.Lock()
		stopped, changed := h.stopped, h.changed
		h.mu.Unlock()
		if stopped != nil {
			return stopped.ErrorCode
		}
		<-changed
	}
}

func (f *fakeStream) SendDatagram(b []byte) error {
	if f.sendErr != nil {
		return f.sendErr
	}
	if int64(quicvarint.Len(uint64(f.id/4))+len(b)) > f.maxDatagram {
		return &quic.DatagramTooLargeError{MaxDatagramPayloadSize: f.maxDatagram}
	}
	if f.toPeer != nil {
		f.toPeer <- append([]byte(nil), b...)
	}
	return nil
}

func (f *fakeStream) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	for {
		f.in.mu.Lock()
		changed, stopped := f.in.changed, f.in.stopped
		f.in.mu.Unlock()
		select {
		case b := <-f.fromPeer:
			return b, nil
		default:
		}
		if stopped != nil {
			return nil, remote(stopped, false)
		}
		select {
		case b := <-f.fromPeer:
			return b, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-changed:
		}
	}
}

var _ Stream = (*fakeStream)(nil)

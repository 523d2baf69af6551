package masque

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Run sends queued capsules and reads the peer's until the session ends, and calls
// handle for each event in the order of the stream, one at a time, on the calling
// goroutine. While handle runs no further capsule is read: the peer is held by flow
// control, nothing is dropped. handle may call every method of the session but Run.
//
// It returns nil after Close; ErrPeerClosed after an orderly end by the peer; the
// cause of ctx's end, which resets the stream with H3_REQUEST_CANCELLED; otherwise
// what went wrong. A malformed capsule resets the stream with H3_MESSAGE_ERROR (RFC
// 9297 section 3.3), one beyond a limit with H3_EXCESSIVE_LOAD, a panic in handle
// with H3_INTERNAL_ERROR. Run may be called once.
func (s *Session) Run(ctx context.Context, handle func(Event)) error {
	if err := s.start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { s.abort(http3.ErrCodeRequestCanceled, context.Cause(ctx)) })
	defer stop()
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.guard("write capsules", s.writeCapsules)
	}()
	s.guard("read capsules", func() { s.readEnded(s.readCapsules(handle)) })
	<-written
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// start marks the session as running, once.
func (s *Session) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.Load() {
		return s.closedErrorLocked()
	}
	if s.running {
		return errRunning
	}
	s.running = true
	return nil
}

// guard turns a panic at the root of one of Run's two goroutines into the end of
// the session.
func (s *Session) guard(what string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			s.abort(http3.ErrCodeInternalError, fmt.Errorf("%s: panic: %v\n%s", what, p, debug.Stack()))
		}
	}()
	f()
}

// readCapsules reads until the stream ends. It never returns nil.
func (s *Session) readCapsules(handle func(Event)) error {
	r := newCapsuleReader(s.str)
	for {
		t, body, err := r.next()
		if err != nil {
			return err
		}
		if !t.parsed() {
			if t == capsuleDatagram {
				s.counters.capsulesDatagram.Add(1)
			} else {
				s.counters.capsulesUnknown.Add(1)
			}
			continue
		}
		s.counters.capsulesReceived.Add(1)
		e, err := s.parse(t, body)
		if err != nil {
			return err
		}
		if e != nil && !s.ended.Load() {
			handle(e)
		}
	}
}

// parse turns a capsule into an event and keeps whole-state ones. It returns nil
// for a capsule that is none of the caller's business.
func (s *Session) parse(t CapsuleType, body []byte) (Event, error) {
	switch t {
	case capsuleAddressAssign:
		a, malformed, err := ParseAddressAssign(body)
		if err != nil {
			return nil, err
		}
		s.counters.addressesMalformed.Add(uint64(malformed))
		return a, nil
	case capsuleAddressRequest:
		r, malformed, err := ParseAddressRequest(body)
		if err != nil {
			return nil, err
		}
		s.counters.addressesMalformed.Add(uint64(malformed))
		return r, nil
	case capsuleRouteAdvertisement:
		r, err := ParseRouteAdvertisement(body)
		if err != nil {
			return nil, err
		}
		return r, nil
	}
	return s.parsePrivate(t, body), nil
}

// parsePrivate is parse for private capsules, which are ignored if not understood.
func (s *Session) parsePrivate(t CapsuleType, body []byte) Event {
	payload, err := ParsePrivate(body)
	if err != nil {
		s.counters.capsulesForeign.Add(1)
		return nil
	}
	if t == CapsuleReport && reservedReport(payload) {
		s.echo(payload)
		return nil
	}
	return PrivateCapsule{Type: t, Payload: append([]byte(nil), payload...)}
}

// echo answers an echo request and wakes the Ping an answer belongs to. Answers to
// a peer that does not read are dropped; the refusal is counted as backlog.
func (s *Session) echo(payload []byte) {
	e, ok := parseEcho(payload)
	switch {
	case !ok:
		s.counters.capsulesForeign.Add(1)
	case e.kind == reportEchoRequest:
		s.counters.echoRequestsReceived.Add(1)
		e.kind = reportEchoAnswer
		// The only errors are a full queue, which is counted, and a session that ended.
		_ = s.sendPrivate(CapsuleReport, e.payload())
	default:
		s.mu.Lock()
		answered := s.echoes[e.id]
		delete(s.echoes, e.id)
		s.mu.Unlock()
		if answered == nil {
			s.counters.unexpectedEchoAnsw.Add(1)
			return
		}
		close(answered)
	}
}

// readEnded ends the session for the reason the reader stopped.
func (s *Session) readEnded(err error) {
	switch {
	case s.ended.Load():
		// Our own end stopped the reader; whoever ended the session sees to the stream.
	case errors.Is(err, io.EOF), orderlyTransportError(err):
		// Finish our side as well. The stream may be gone already; the peer has
		// ended the session either way, so that error says nothing new.
		_ = s.endOrderly(ErrPeerClosed)
	case errors.Is(err, errMalformed):
		s.abort(http3.ErrCodeMessageError, err)
	case errors.Is(err, errExcessive):
		s.abort(http3.ErrCodeExcessiveLoad, err)
	default:
		s.abort(http3.ErrCodeRequestCanceled, fmt.Errorf("read capsules: %w", err))
	}
}

// writeCapsules writes what is queued until the session ends.
func (s *Session) writeCapsules() {
	for {
		select {
		case <-s.wake:
		case <-s.done:
		}
		batch, capsules, aborted, orderly := s.takeQueue()
		if aborted {
			return
		}
		if err := s.write(batch); err != nil {
			s.writeEnded(err, orderly)
			return
		}
		s.counters.capsulesSent.Add(uint64(capsules))
		if orderly {
			// A stream that cannot be finished any more was reset, or its connection
			// is gone: the end that was asked for has come about.
			_ = s.finish()
			return
		}
	}
}

// writeEnded ends the session because a write failed.
func (s *Session) writeEnded(err error, orderly bool) {
	switch {
	case orderly:
		s.reset(http3.ErrCodeNoError)
	case orderlyTransportError(err):
		s.abort(http3.ErrCodeNoError, ErrPeerClosed)
	default:
		s.abort(http3.ErrCodeRequestCanceled, fmt.Errorf("write capsules: %w", err))
	}
}

func (s *Session) write(batch []byte) error {
	if len(batch) == 0 {
		return nil
	}
	_, err := s.str.Write(batch)
	return err
}

// endOrderly ends the session with a finished stream. The writer does the rest if
// it runs: a stream may not be closed while somebody writes to it.
func (s *Session) endOrderly(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.Load() {
		return nil
	}
	s.endLocked(cause)
	if !s.running {
		s.queue = nil
		return s.finish()
	}
	s.orderly = true
	if err := s.str.SetWriteDeadline(time.Now().Add(closeFlush)); err != nil {
		return fmt.Errorf("close connect-ip session: %w", err)
	}
	return nil
}

// finish sends the end of the stream and stops reading.
func (s *Session) finish() error {
	err := s.str.Close()
	s.str.CancelRead(quic.StreamErrorCode(http3.ErrCodeNoError))
	if err != nil {
		return fmt.Errorf("close connect-ip session: %w", err)
	}
	return nil
}

// abort ends the session by resetting the stream. The first end decides the cause,
// but a reset also cuts an orderly end short.
func (s *Session) abort(code http3.ErrCode, cause error) {
	s.mu.Lock()
	if !s.ended.Load() {
		s.endLocked(cause)
	}
	s.queue = nil
	s.mu.Unlock()
	s.reset(code)
}

func (s *Session) reset(code http3.ErrCode) {
	s.str.CancelRead(quic.StreamErrorCode(code))
	s.str.CancelWrite(quic.StreamErrorCode(code))
}

func (s *Session) endLocked(cause error) {
	s.cause = cause
	s.ended.Store(true)
	close(s.done)
}

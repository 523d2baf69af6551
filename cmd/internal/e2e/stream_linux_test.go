package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// blockBytes is what a stream sends at a time, blockPeriod how often: about 6 Mbit/s each way.
	blockBytes  = 16 << 10
	blockPeriod = 20 * time.Millisecond
)

// A stream is a TCP connection with bytes running both ways all the time, of which each is checked.
type stream struct {
	t        *testing.T
	conn     net.Conn
	listener net.Listener
	verified atomic.Int64 // bytes that have come back unchanged
	stop     chan struct{}
	done     chan error // two answers: of the writer and of the reader
	echoed   chan error // of the server
}

// newStream connects from a machine to an address of another, which sends everything back.
func newStream(t *testing.T, from, to *machine, address netip.Addr) *stream {
	t.Helper()
	listener, err := to.Listen(netip.AddrPortFrom(address, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{
		t: t, listener: listener, stop: make(chan struct{}), done: make(chan error, 2), echoed: make(chan error, 1),
	}
	go func() { s.echoed <- s.echo() }()
	if s.conn, err = from.Dial(within(t, patience), "tcp", listener.Addr().String()); err != nil {
		t.Fatalf("connect a stream: %v", err)
	}
	t.Cleanup(func() {
		_ = listener.Close() // ended in good order, or to make the goroutines end
		_ = s.conn.Close()
	})
	go func() { s.done <- s.write() }()
	go func() { s.done <- s.read() }()
	return s
}

// echo is the far end.
func (s *stream) echo() error {
	conn, err := s.listener.Accept()
	if err != nil {
		return err
	}
	_, err = io.Copy(conn, conn)
	return errors.Join(err, conn.Close())
}

// content is the endless sequence of bytes that a stream sends.
func content() *rand.ChaCha8 {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], 77)
	return rand.NewChaCha8(seed)
}

func (s *stream) write() error {
	tick := time.NewTicker(blockPeriod)
	defer tick.Stop()
	bytes, block := content(), make([]byte, blockBytes)
	for {
		select {
		case <-tick.C:
		case <-s.stop:
			return s.conn.(*net.TCPConn).CloseWrite()
		}
		_, _ = bytes.Read(block) // cannot fail
		if _, err := s.conn.Write(block); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
	}
}

func (s *stream) read() error {
	bytes, want, got := content(), make([]byte, blockBytes), make([]byte, blockBytes)
	for {
		_, err := io.ReadFull(s.conn, got)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		_, _ = bytes.Read(want) // cannot fail
		if string(got) != string(want) {
			return fmt.Errorf("stream: the block at byte %d came back changed", s.verified.Load())
		}
		s.verified.Add(blockBytes)
	}
}

// flows waits until so many more bytes have come back, and returns how long that took.
func (s *stream) flows(bytes int64) time.Duration {
	s.t.Helper()
	begin, target, ctx := time.Now(), s.verified.Load()+bytes, within(s.t, 2*patience)
	for s.verified.Load() < target {
		select {
		case err := <-s.done:
			s.t.Fatalf("after %d bytes: %v", s.verified.Load(), err)
		case <-ctx.Done():
			s.t.Fatalf("the stream stands still after %d bytes", s.verified.Load())
		default:
			pause(ctx, pollPeriod)
		}
	}
	return time.Since(begin)
}

// finish ends the stream in good order and fails the test unless every byte has come back.
func (s *stream) finish() {
	s.t.Helper()
	close(s.stop)
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for _, end := range []chan error{s.done, s.done, s.echoed} {
		select {
		case err := <-end:
			if err != nil {
				s.t.Error(err)
			}
		case <-ctx.Done():
			s.t.Fatal("the stream does not end")
		}
	}
	s.t.Logf("%d bytes came back intact", s.verified.Load())
}

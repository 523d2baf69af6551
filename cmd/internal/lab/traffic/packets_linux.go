package traffic

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	receiveBatch = 64
	// maxSessions bounds the measurements of paced packets at a time, and maxPackets the memory of each.
	maxSessions = 16
	// Once the client has sent its last packet, the server waits until none has come for quietTime, at
	// most settleTime.
	quietTime  = 300 * time.Millisecond
	settleTime = 5 * time.Second
)

// servePackets returns echo packets and counts paced ones, until the socket is closed.
func (s *Server) servePackets() error {
	in, err := newBatch(s.udp, receiveBatch, maxMessageBytes, false)
	if err != nil {
		return err
	}
	for {
		n, err := in.receive()
		if err != nil {
			if transient(err) {
				continue // an answer met it
			}
			return fmt.Errorf("receive packets: %w", err)
		}
		if err := answerAll(in, s.sortOut(in, n)); err != nil {
			return err
		}
	}
}

// sortOut counts the paced packets and moves the others to the front of the batch, as answers; it
// returns how many.
func (s *Server) sortOut(in *batch, packets int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	answers := 0
	for i := range packets {
		magic, session, number, ok := header(in.message(i))
		switch {
		case !ok:
		case magic == echoMagic:
			in.answer(answers, i)
			answers++
		case magic == pacedMagic:
			if seq := s.sessions[session]; seq != nil {
				seq.add(number)
			}
		}
	}
	return answers
}

// answerAll sends the first packets of the batch; one that meets an error of its path is lost.
func answerAll(out *batch, answers int) error {
	for sent := 0; sent < answers; {
		n, err := out.send(sent, answers-sent)
		sent += n
		if err != nil && !transient(err) {
			return fmt.Errorf("answer packets: %w", err)
		}
		if err != nil {
			sent++
		}
	}
	return nil
}

// servePaced opens a session, waits for the client to finish and tells it what arrived.
func (s *Server) servePaced(ctx context.Context, conn *net.TCPConn, r request) error {
	before, err := socketDrops(s.udp)
	if err != nil {
		return err
	}
	session, err := s.openSession(r.packets)
	if err != nil {
		return err
	}
	defer s.closeSession(session)
	if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, session)); err != nil {
		return unlessGone(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return unlessGone(err)
	}
	t, err := s.settle(ctx, session, r.packets)
	if err != nil {
		return unlessGone(err)
	}
	after, err := socketDrops(s.udp)
	if err != nil {
		return unlessGone(err)
	}
	t.drops = int64(after - before) // wraps as the kernel's counter does
	_, err = conn.Write(t.encode())
	return unlessGone(err)
}

func (s *Server) openSession(packets int) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sessions) == maxSessions {
		return 0, fmt.Errorf("more than %d measurements of paced packets at a time", maxSessions)
	}
	s.last++
	s.sessions[s.last] = newSequence(packets)
	return s.last, nil
}

func (s *Server) closeSession(session uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, session)
}

// settle waits until no more packets of a session come.
func (s *Server) settle(ctx context.Context, session uint32, packets int) (tally, error) {
	const look = 20 * time.Millisecond
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	began := time.Now()
	last, changed := s.tally(session), began
	for now := began; ; {
		done := last.received == int64(packets) || now.Sub(changed) > quietTime || now.Sub(began) > settleTime
		if done {
			return last, nil
		}
		select {
		case <-ctx.Done():
			return last, net.ErrClosed
		case now = <-ticker.C:
		}
		if t := s.tally(session); t != last {
			last, changed = t, now
		}
	}
}

func (s *Server) tally(session uint32) tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[session].tally
}

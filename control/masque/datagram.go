package masque

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

const (
	// contextIDBytes is the length of context ID 0, the only one sent.
	contextIDBytes = 1
	// quicOverheadBytes is what quic-go v0.65.0 sets aside in every packet when it
	// says how long a datagram may be.
	quicOverheadBytes = 37
	// maxSendBytes is more than any QUIC packet of quic-go (1,452 bytes) can hold.
	maxSendBytes = 1500
	// oversizeContextID starts the datagram that asks for the limit. It is the
	// highest ID there is, which no side registers: should a transport ever take the
	// datagram, the peer drops it.
	oversizeContextID uint64 = 1<<62 - 1
)

// MinIPv6PacketSize is the least MaxPacketSize a session needs to convey IPv6, in
// bytes (RFC 9484 section 10.1). Below it an endpoint assigns no IPv6 address, and
// aborts a session that has one.
const MinIPv6PacketSize = 1280

// SendPacket sends one IPv4 or IPv6 packet, unpadded, under context ID 0. The bytes
// are copied. It blocks while quic-go has 32 datagrams waiting, so it must not be
// called by whoever drains a NIC. It returns nil, which promises no delivery;
// *PacketTooLargeError; ErrNotOnePacket; an error that matches ErrClosed; or that
// of the transport. It allocates nothing; quic-go does, twice.
func (s *Session) SendPacket(p []byte) error {
	if !onePacket(p) {
		s.counters.packetsInvalid.Add(1)
		return ErrNotOnePacket
	}
	if len(p) > maxSendBytes {
		s.counters.packetsTooLarge.Add(1)
		return &PacketTooLargeError{MaxPacketBytes: s.MaxPacketSize()}
	}
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	n := copy(s.sendBuf[contextIDBytes:], p)
	return s.sendFramed(s.sendBuf[:contextIDBytes+n])
}

// sendFramed sends a context ID and a packet.
func (s *Session) sendFramed(b []byte) error {
	if s.ended.Load() {
		s.counters.packetsFailed.Add(1)
		return s.closedError()
	}
	if err := s.str.SendDatagram(b); err != nil {
		return s.sendError(err)
	}
	s.counters.packetsSent.Add(1)
	s.counters.bytesSent.Add(uint64(len(b) - contextIDBytes))
	return nil
}

// sendError is the slow half of sendFramed.
func (s *Session) sendError(err error) error {
	if s.learnLimit(err) {
		s.counters.packetsTooLarge.Add(1)
		return &PacketTooLargeError{MaxPacketBytes: int(s.maxPacket.Load())}
	}
	s.counters.packetsFailed.Add(1)
	if s.ended.Load() {
		return s.closedError()
	}
	return fmt.Errorf("send packet: %w", err)
}

// learnLimit takes the limit out of quic-go's error.
func (s *Session) learnLimit(err error) bool {
	var tooLarge *quic.DatagramTooLargeError
	if !errors.As(err, &tooLarge) {
		return false
	}
	s.maxPacket.Store(max(tooLarge.MaxDatagramPayloadSize-int64(s.framingBytes), 0))
	return true
}

// MaxPacketSize returns the length in bytes of the longest packet that fits into a
// datagram now. It follows the path MTU, up while quic-go searches and down after a
// migration. It asks quic-go, by offering a datagram no packet can hold and reading
// the limit in the refusal, and so allocates about 3 KB: call it on events and
// timers, not per packet. After the end of the session it is the last known value; if
// none was ever known, what the smallest QUIC packet holds.
func (s *Session) MaxPacketSize() int {
	oversize := make([]byte, maxSendBytes)
	binary.BigEndian.PutUint64(oversize, 0b11<<62|oversizeContextID)
	if err := s.str.SendDatagram(oversize); err != nil {
		s.learnLimit(err)
	}
	return int(s.maxPacket.Load())
}

// ReceivePacket returns the next packet, without its context ID. The slice is the
// caller's to keep. One goroutine should do nothing but call it and move the packet
// on: quic-go holds 32 datagrams for a stream and drops the rest without a word. The
// packet is the peer's bytes, unchecked. It returns the context's error, or one that
// matches ErrClosed after the session's end.
func (s *Session) ReceivePacket(ctx context.Context) ([]byte, error) {
	for {
		b, err := s.str.ReceiveDatagram(ctx)
		if err != nil {
			return nil, s.receiveError(ctx, err)
		}
		if len(b) > contextIDBytes && b[0] == 0 {
			s.counters.packetsReceived.Add(1)
			s.counters.bytesReceived.Add(uint64(len(b) - contextIDBytes))
			return b[contextIDBytes:], nil
		}
		if p := s.unusual(b); p != nil {
			return p, nil
		}
	}
}

// unusual handles a datagram that does not begin with the short form of context ID
// 0: it is a packet if the ID is a longer form of 0, else it is counted.
func (s *Session) unusual(b []byte) []byte {
	id, n, err := quicvarint.Parse(b)
	switch {
	case err != nil || id == 0 && n == len(b):
		s.counters.datagramsMalformed.Add(1)
		return nil
	case id != 0:
		s.counters.datagramsUnknown.Add(1)
		return nil
	}
	s.counters.packetsReceived.Add(1)
	s.counters.bytesReceived.Add(uint64(len(b) - n))
	return b[n:]
}

func (s *Session) receiveError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.ended.Load() {
		return s.closedError()
	}
	return fmt.Errorf("receive packet: %w: %w", ErrClosed, err)
}

// onePacket reports whether p is as long as its IP header says. IPv6 jumbograms do
// not fit a datagram and are not known here.
func onePacket(p []byte) bool {
	if len(p) < 20 {
		return false
	}
	switch p[0] >> 4 {
	case 4:
		return int(binary.BigEndian.Uint16(p[2:])) == len(p)
	case 6:
		return len(p) >= 40 && int(binary.BigEndian.Uint16(p[4:]))+40 == len(p)
	}
	return false
}

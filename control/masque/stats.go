package masque

import "sync/atomic"

// Stats are the counters of a session since it began. Datagrams that quic-go drops
// because its queues are full (128 a connection, 32 a stream) are not among them:
// it does not tell.
type Stats struct {
	PacketsSent     uint64
	BytesSent       uint64 // of packets, without any framing
	PacketsReceived uint64
	BytesReceived   uint64

	PacketsTooLarge       uint64 // refused by SendPacket: longer than a datagram
	PacketsInvalid        uint64 // refused by SendPacket: not exactly one packet
	PacketsFailed         uint64 // refused by the transport for another reason
	DatagramsUnknown      uint64 // received with a context ID that nobody registered
	DatagramsMalformed    uint64 // received without a whole context ID or packet
	CapsulesSent          uint64
	CapsulesReceived      uint64 // of types that are parsed
	CapsulesUnknown       uint64 // skipped: unknown types
	CapsulesDatagram      uint64 // skipped: DATAGRAM capsules
	CapsulesForeign       uint64 // skipped: private types of another magic or version
	AddressesMalformed    uint64 // entries left out of an otherwise usable capsule
	CapsulesBacklogged    uint64 // refused because the peer does not read
	EchoRequestsReceived  uint64
	EchoAnswersUnexpected uint64
}

// counters are the live form of Stats: any goroutine adds, any reads.
type counters struct {
	packetsSent, bytesSent, packetsReceived, bytesReceived       atomic.Uint64
	packetsTooLarge, packetsInvalid, packetsFailed               atomic.Uint64
	datagramsUnknown, datagramsMalformed                         atomic.Uint64
	capsulesSent, capsulesReceived, capsulesUnknown              atomic.Uint64
	capsulesDatagram, capsulesForeign, addressesMalformed        atomic.Uint64
	capsulesBacklogged, echoRequestsReceived, unexpectedEchoAnsw atomic.Uint64
}

// Stats returns the counters. They are read one by one, not as one instant.
func (s *Session) Stats() Stats {
	c := &s.counters
	return Stats{
		PacketsSent:           c.packetsSent.Load(),
		BytesSent:             c.bytesSent.Load(),
		PacketsReceived:       c.packetsReceived.Load(),
		BytesReceived:         c.bytesReceived.Load(),
		PacketsTooLarge:       c.packetsTooLarge.Load(),
		PacketsInvalid:        c.packetsInvalid.Load(),
		PacketsFailed:         c.packetsFailed.Load(),
		DatagramsUnknown:      c.datagramsUnknown.Load(),
		DatagramsMalformed:    c.datagramsMalformed.Load(),
		CapsulesSent:          c.capsulesSent.Load(),
		CapsulesReceived:      c.capsulesReceived.Load(),
		CapsulesUnknown:       c.capsulesUnknown.Load(),
		CapsulesDatagram:      c.capsulesDatagram.Load(),
		CapsulesForeign:       c.capsulesForeign.Load(),
		AddressesMalformed:    c.addressesMalformed.Load(),
		CapsulesBacklogged:    c.capsulesBacklogged.Load(),
		EchoRequestsReceived:  c.echoRequestsReceived.Load(),
		EchoAnswersUnexpected: c.unexpectedEchoAnsw.Load(),
	}
}

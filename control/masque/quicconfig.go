package masque

import (
	"time"

	"github.com/quic-go/quic-go"
)

// Packet sizes a dialer tries, in bytes of UDP payload. The package comment says
// why these.
const (
	// LargestPacketSize lets an inner packet of 1,380 bytes through and passes every
	// path of 1,448 bytes (IPv4) or 1,468 (IPv6): Ethernet, PPPoE, most others.
	LargestPacketSize uint16 = 1420
	// PreferredPacketSize lets an inner packet of 1,280 bytes through.
	PreferredPacketSize uint16 = 1320
	// SmallestPacketSize is the least QUIC allows (RFC 9000 section 14).
	SmallestPacketSize uint16 = 1200
)

// packetSizes are the sizes in the order in which a dialer tries them.
func packetSizes() []uint16 {
	return []uint16{LargestPacketSize, PreferredPacketSize, SmallestPacketSize}
}

// Timers of a connection that carries sessions.
const (
	MaxIdleTimeout  = 60 * time.Second
	KeepAlivePeriod = 15 * time.Second
	// HandshakeIdleTimeout ends a handshake after this long without a packet.
	HandshakeIdleTimeout = 5 * time.Second
)

// A session needs one stream and little data on it; a stranger gets no more memory
// than this for what it sends.
const (
	maxIncomingStreams    = 16
	maxIncomingUniStreams = 8
	maxStreamWindowBytes  = 128 << 10
	maxConnWindowBytes    = 256 << 10
	startWindowBytes      = 64 << 10
)

// QUICConfig returns the QUIC settings of both ends. initialPacketSize is the size
// of the first packets and the floor below which path MTU discovery never goes: see
// the package comment before choosing anything but LargestPacketSize, PreferredPacketSize or
// SmallestPacketSize.
func QUICConfig(initialPacketSize uint16) *quic.Config {
	return &quic.Config{
		EnableDatagrams:                true,
		MaxIdleTimeout:                 MaxIdleTimeout,
		KeepAlivePeriod:                KeepAlivePeriod,
		HandshakeIdleTimeout:           HandshakeIdleTimeout,
		InitialPacketSize:              initialPacketSize,
		MaxIncomingStreams:             maxIncomingStreams,
		MaxIncomingUniStreams:          maxIncomingUniStreams,
		InitialStreamReceiveWindow:     startWindowBytes,
		MaxStreamReceiveWindow:         maxStreamWindowBytes,
		InitialConnectionReceiveWindow: startWindowBytes,
		MaxConnectionReceiveWindow:     maxConnWindowBytes,
	}
}

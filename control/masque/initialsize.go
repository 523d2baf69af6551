package masque

import (
	"hash/maphash"
	"net"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"
)

// initialSlots is how many clients in handshake are remembered. One that is pushed
// out gets the smallest packets, which always work.
const initialSlots = 512

// InitialSizes remembers how long the Initial packets of clients were, so that a
// server answers in packets the path has just shown to carry and no longer ones. It
// holds a fixed amount of memory whatever strangers send. A forged Initial can at
// most raise the size for an address and port somebody is dialing from at that
// moment. Its methods may be called from any goroutine.
type InitialSizes struct {
	seed maphash.Seed

	mu    sync.Mutex
	slots [initialSlots]initialSize
}

type initialSize struct {
	remote netip.AddrPort
	bytes  uint16
}

// NewInitialSizes returns an empty memory.
func NewInitialSizes() *InitialSizes { return &InitialSizes{seed: maphash.MakeSeed()} }

// Observe looks at one received UDP datagram. All but QUIC version 1 Initials of
// 1,200 bytes or more are passed over after a look at two bytes.
func (s *InitialSizes) Observe(remote netip.AddrPort, datagram []byte) {
	if len(datagram) < int(SmallestPacketSize) || datagram[0]&0xf0 != 0xc0 {
		return
	}
	remote = canonicalAddrPort(remote)
	slot := &s.slots[maphash.Comparable(s.seed, remote)%initialSlots]
	bytes := uint16(min(len(datagram), 1<<16-1))
	s.mu.Lock()
	defer s.mu.Unlock()
	// A client pads all datagrams with Initials to its size, but one that is dialing
	// with two sizes at once shares the address: the last one seen counts.
	*slot = initialSize{remote: remote, bytes: bytes}
}

// PacketSize returns the packet size to answer a client with.
func (s *InitialSizes) PacketSize(remote netip.AddrPort) uint16 {
	remote = canonicalAddrPort(remote)
	slot := &s.slots[maphash.Comparable(s.seed, remote)%initialSlots]
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, size := range packetSizes() {
		if slot.remote == remote && slot.bytes >= size {
			return size
		}
	}
	return SmallestPacketSize
}

// QUICConfig returns a listener's QUIC settings: those of [QUICConfig] with the
// packet size chosen for each client.
func (s *InitialSizes) QUICConfig() *quic.Config {
	c := QUICConfig(SmallestPacketSize)
	c.GetConfigForClient = func(info *quic.ClientInfo) (*quic.Config, error) {
		size := SmallestPacketSize
		if udp, ok := info.RemoteAddr.(*net.UDPAddr); ok {
			size = s.PacketSize(udp.AddrPort())
		}
		return QUICConfig(size), nil
	}
	return c
}

// canonicalAddrPort makes the forms equal in which one socket names a peer.
func canonicalAddrPort(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

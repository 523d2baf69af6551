package masque

import (
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/net/ipv4"
)

// Socket is a UDP socket for a quic.Transport. It shows each received datagram to an
// InitialSizes, and keeps connections alive through a moment without a route: quic-go
// ends a connection at the first write that fails for another reason than the size of
// the packet. It keeps quic-go's fast paths (batches, GSO, ECN, DF): quic-go looks for
// ReadBatch before it reads the descriptor behind a wrapper's back.
type Socket struct {
	UDPConn
	sizes *InitialSizes
	lost  atomic.Uint64
}

// UDPConn is what quic-go wants of a socket to use all its fast paths. *udp.QUICConn of
// dataplane/udp is one.
type UDPConn interface {
	net.PacketConn
	syscall.Conn
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
	WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
}

// NewSocket wraps a socket, which is the caller's to close.
func NewSocket(conn UDPConn, sizes *InitialSizes) *Socket {
	return &Socket{UDPConn: conn, sizes: sizes}
}

// ReadBatch reads like (*ipv4.PacketConn).ReadBatch.
func (s *Socket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	n, err := s.UDPConn.ReadBatch(ms, flags)
	for _, m := range ms[:max(n, 0)] {
		s.observe(m.Addr, m.Buffers[0][:min(m.N, len(m.Buffers[0]))])
	}
	return n, err
}

// ReadFrom reads like (*net.UDPConn).ReadFrom; quic-go uses it on Windows.
func (s *Socket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, addr, err := s.UDPConn.ReadFrom(b)
	if err == nil {
		s.observe(addr, b[:n])
	}
	return n, addr, err
}

func (s *Socket) observe(addr net.Addr, datagram []byte) {
	if udp, ok := addr.(*net.UDPAddr); ok {
		s.sizes.Observe(udp.AddrPort(), datagram)
	}
}

// WriteMsgUDP writes like (*net.UDPConn).WriteMsgUDP, except that it calls packets of an
// established connection written that the host had no way to send: the network has
// lost them, as far as QUIC is concerned. A packet of a handshake does fail, so that a
// dialer turns to the next address at once, and so does one that is too long.
func (s *Socket) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = s.UDPConn.WriteMsgUDP(b, oob, addr)
	if s.isLoss(b, err) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}

// WriteTo writes like (*net.UDPConn).WriteTo, with the exception that WriteMsgUDP makes;
// quic-go uses it on Windows.
func (s *Socket) WriteTo(b []byte, addr net.Addr) (int, error) {
	n, err := s.UDPConn.WriteTo(b, addr)
	if s.isLoss(b, err) {
		return len(b), nil
	}
	return n, err
}

// isLoss reports whether a failed write passes for a lost packet, and counts it. A
// clear first bit is the short header of an established connection (RFC 9000 section
// 17.3).
func (s *Socket) isLoss(b []byte, err error) bool {
	if err == nil || len(b) == 0 || b[0]&0x80 != 0 || !noWayOut(err) {
		return false
	}
	s.lost.Add(1)
	return true
}

// WritesLost returns how many writes were lost because the host had no way to send
// them. One write may hold several packets.
func (s *Socket) WritesLost() uint64 { return s.lost.Load() }

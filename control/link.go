package control

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/aethertunnel/aethertunnel/control/masque"
)

// Application error codes with which a node closes a connection. Like masque.CodeRestart they are fixed random numbers
// outside the values that RFC 9114 section 8.1 reserves.
const (
	// CodeRevoked tells a member that it is no longer admitted: it does not come back.
	CodeRevoked quic.ApplicationErrorCode = 0x1c4f7a32
	// CodeReplaced tells a member that a newer session of the same node has taken over.
	CodeReplaced quic.ApplicationErrorCode = 0x1c4f7a33
)

// link is one live session and the connection below it.
type link struct {
	conn    *quic.Conn
	session *masque.Session
	remote  netip.AddrPort
	group   string // negotiated key exchange
	since   time.Time
	ctx     context.Context // ends with the link
	cancel  context.CancelCauseFunc
}

// close ends the link's connection with a code for the peer.
func (l *link) close(code quic.ApplicationErrorCode, reason string) {
	// The connection is given up in either case, so its own error says nothing new.
	_ = l.conn.CloseWithError(code, reason)
	l.cancel(context.Canceled)
}

// currentRemote is where the peer is now, which changes when it roams.
func (l *link) currentRemote() netip.AddrPort {
	if a := addrPort(l.conn.RemoteAddr()); a.IsValid() {
		return a
	}
	return l.remote
}

// addrPort reads a UDP address.
func addrPort(a net.Addr) netip.AddrPort {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := udp.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// LinkStatus is a reading of one session.
type LinkStatus struct {
	Remote         netip.AddrPort
	Group          string // key exchange, for example X25519MLKEM768
	Since          time.Time
	RTT            time.Duration     // smoothed, of the QUIC connection
	MaxPacketBytes int               // longest inner packet that fits now
	Ignored        map[string]uint64 // what the session did not understand or refused, by kind
}

func (l *link) status() *LinkStatus {
	return &LinkStatus{
		Remote: l.currentRemote(), Group: l.group, Since: l.since,
		RTT: l.conn.ConnectionStats().SmoothedRTT, MaxPacketBytes: l.session.MaxPacketSize(),
		Ignored: ignored(l.session.Stats()),
	}
}

// ignored picks the counters of what a session was sent and did not take.
func ignored(s masque.Stats) map[string]uint64 {
	counts := map[string]uint64{
		"datagrams_unknown": s.DatagramsUnknown, "datagrams_malformed": s.DatagramsMalformed,
		"capsules_unknown": s.CapsulesUnknown, "capsules_foreign": s.CapsulesForeign,
		"capsules_datagram": s.CapsulesDatagram, "addresses_malformed": s.AddressesMalformed,
	}
	maps.DeleteFunc(counts, func(_ string, n uint64) bool { return n == 0 })
	return counts
}

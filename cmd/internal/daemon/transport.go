package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"

	"github.com/aethertunnel/aethertunnel/control"
	"github.com/aethertunnel/aethertunnel/control/config"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

// socket is one UDP socket, with the QUIC transport and the lanes on it.
type socket struct {
	udp       *udp.Conn
	lanes     *control.LaneSocket // the same
	transport *quic.Transport
	sizes     *masque.InitialSizes
	received  chan struct{} // closed when the goroutine that receives has ended

	connections atomic.Int64 // taken in, handshakes included
}

// connectionIDs issues the connection IDs of QUIC on one socket, from the same source as those of lanes.
type connectionIDs struct {
	from   *lane.IDGenerator
	socket byte
}

// GenerateConnectionID implements [quic.ConnectionIDGenerator].
func (c connectionIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	id := c.from.Next(c.socket)
	return quic.ConnectionIDFromBytes(id[:]), nil
}

// ConnectionIDLen implements [quic.ConnectionIDGenerator].
func (connectionIDs) ConnectionIDLen() int { return lane.ConnectionIDBytes }

// Bounds on what strangers can make us hold.
const (
	// unverifiedPerSecond and unverifiedBurst are the handshakes taken from addresses that have proven nothing.
	unverifiedPerSecond, unverifiedBurst = 200, 400
	// maxConnections is how many QUIC connections one socket holds.
	maxConnections = 20_000
)

var errTooManyConnections = errors.New("too many connections")

// listen opens a UDP socket with our firewall mark. Its packets are routed past the tunnel.
func (n *node) listen(ctx context.Context, address netip.AddrPort) (*socket, error) {
	conn, err := udp.Open(ctx, udp.Config{Address: address, Mark: n.host.selectors.Mark})
	if err != nil {
		return nil, listenError(address, err)
	}
	reset, err := n.state.resetKey(resetLabel(address))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s := &socket{udp: conn, sizes: masque.NewInitialSizes(), received: make(chan struct{})}
	s.lanes = &control.LaneSocket{Conn: conn, Resetter: lane.NewResetter(*reset)}
	handshakes := rate.NewLimiter(unverifiedPerSecond, unverifiedBurst)
	s.transport = &quic.Transport{
		Conn:                  masque.NewSocket(conn.QUIC(), s.sizes),
		ConnectionIDGenerator: connectionIDs{from: n.ids},
		StatelessResetKey:     reset,
		// A flood of Initials is made to prove its addresses first (RFC 9000 section 8.1.2); a herd of members that
		// comes back pays one round trip for it.
		VerifySourceAddress: func(net.Addr) bool { return !handshakes.Allow() },
		ConnContext: func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			return s.limitConnections(control.WithSocket(ctx, s.lanes), info)
		},
		Tracer: n.drops,
	}
	if port := conn.LocalAddr().Port(); port != 0 {
		n.host.ports = append(n.host.ports, port)
	}
	go func() {
		defer close(s.received)
		err := guard("receive", func() error { return n.engine.Receive(context.WithoutCancel(ctx), conn) })
		if err != nil {
			n.fail(err)
		}
	}()
	n.sockets = append(n.sockets, s)
	return s, nil
}

// resetLabel names a socket in what is derived for it. It is the same at every start with the same --listen.
func resetLabel(address netip.AddrPort) string {
	if !address.Addr().IsValid() {
		return fmt.Sprintf("*:%d", address.Port())
	}
	return address.String()
}

// limitConnections refuses connections beyond what a process can hold. Those of strangers end after
// masque.ConnectionGrace.
func (s *socket) limitConnections(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	if s.connections.Add(1) > maxConnections {
		s.connections.Add(-1)
		return nil, errTooManyConnections
	}
	context.AfterFunc(ctx, func() { s.connections.Add(-1) })
	return ctx, nil
}

func (s *socket) close() error {
	err := errors.Join(s.transport.Close(), s.udp.Close())
	<-s.received
	return err
}

// listenError is the one line for the user.
func listenError(address netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, udp.ErrPortInUse):
		return fmt.Errorf("%w: choose another with --listen :PORT, or stop the other program (`ss -lunp sport = :%d` names it)",
			err, address.Port())
	case errors.Is(err, udp.ErrPermission):
		return fmt.Errorf("%w: run with sudo, or choose a port above 1023 with --listen :PORT", err)
	case errors.Is(err, udp.ErrMark):
		return fmt.Errorf("%w: run with sudo, or give the process CAP_NET_ADMIN", err)
	case errors.Is(err, udp.ErrAddress):
		return fmt.Errorf("%w: give --listen an address of this machine, or only :PORT for all of them", err)
	}
	return err
}

// policy is the key exchange that the configuration asks for.
func policy(c config.TLS) masque.KeyExchange {
	if c.KeyExchange == config.PreferHybrid {
		return masque.AllowClassical
	}
	return masque.RequireHybrid
}

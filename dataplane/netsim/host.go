package netsim

import (
	"errors"
	"fmt"
	"net/netip"
)

var (
	// ErrAddress means that an address is taken, or not valid.
	ErrAddress = errors.New("address is taken or not valid")
	// ErrPort means that a port of the host is taken.
	ErrPort = errors.New("port is taken")
)

// TooLongError means that the host's own interface does not take a datagram (EMSGSIZE). It is the length of the payload.
type TooLongError int

func (e TooLongError) Error() string {
	return fmt.Sprintf("datagram of %d bytes is too long for the interface", int(e))
}

// HostConfig says what a host is like.
type HostConfig struct {
	// Addr is the host's address; behind a NAT it is one of the inside.
	Addr netip.Addr
	// Behind is the NAT between the host and the network, nil for none.
	Behind *NAT
	// Up and Down are the link that connects it: what it sends, and what it receives.
	Up, Down Conditions
	// InterfaceBytes is the longest IP packet that its own interface takes; of a longer one the sender is told. 0 is no
	// bound.
	InterfaceBytes int
}

// Host has UDP sockets and one link. All other hosts are behind that link.
type Host struct {
	network        *Network
	addr           netip.Addr
	nat            *NAT
	up, down       direction
	interfaceBytes int
	sockets        map[uint16]*Socket
}

// AddHost adds a host. The error is [ErrAddress].
func (n *Network) AddHost(cfg HostConfig) (*Host, error) {
	h := &Host{
		network: n, nat: cfg.Behind, interfaceBytes: cfg.InterfaceBytes, sockets: make(map[uint16]*Socket),
		up: direction{Conditions: cfg.Up}, down: direction{Conditions: cfg.Down},
	}
	if err := h.Move(cfg.Addr); err != nil {
		return nil, err
	}
	return h, nil
}

// Addr is the host's address.
func (h *Host) Addr() netip.Addr { return h.addr }

// Behind is the NAT that the host is behind, or nil.
func (h *Host) Behind() *NAT { return h.nat }

// inside is the part of the network in which the host's address means something.
func (h *Host) inside() map[netip.Addr]*Host {
	if h.nat != nil {
		return h.nat.hosts
	}
	return h.network.hosts
}

// Move gives the host another address. Its sockets stay; what is under way to the address before is lost. The error is
// [ErrAddress].
func (h *Host) Move(to netip.Addr) error {
	if to == h.addr {
		return nil
	}
	_, isNAT := h.network.nats[to]
	if !to.IsValid() || h.inside()[to] != nil || h.nat == nil && isNAT {
		return fmt.Errorf("host at %v: %w", to, ErrAddress)
	}
	delete(h.inside(), h.addr)
	h.addr = to
	h.inside()[to] = h
	return nil
}

// Up and Down return what the two directions of the host's link are like now.
func (h *Host) Up() Conditions { return h.up.Conditions }

// Down is the other direction of [Host.Up].
func (h *Host) Down() Conditions { return h.down.Conditions }

// SetLink makes the host's link another one, for what is sent from now on.
func (h *Host) SetLink(up, down Conditions) { h.up.Conditions, h.down.Conditions = up, down }

// SetInterfaceBytes changes what the host's own interface takes.
func (h *Host) SetInterfaceBytes(bytes int) { h.interfaceBytes = bytes }

// Socket is a UDP socket on all addresses of a host.
type Socket struct {
	host    *Host
	port    uint16
	receive func(*Datagram)
}

// Open opens a socket. receive is called for everything that comes. The error is [ErrPort].
func (h *Host) Open(port uint16, receive func(*Datagram)) (*Socket, error) {
	if port == 0 || h.sockets[port] != nil {
		return nil, fmt.Errorf("open port %d: %w", port, ErrPort)
	}
	s := &Socket{host: h, port: port, receive: receive}
	h.sockets[port] = s
	return s, nil
}

// Close closes the socket.
func (s *Socket) Close() {
	if s.host.sockets[s.port] == s {
		delete(s.host.sockets, s.port)
	}
}

// LocalAddr is the host's address and the socket's port.
func (s *Socket) LocalAddr() netip.AddrPort { return netip.AddrPortFrom(s.host.addr, s.port) }

// Send sends a datagram, which the network keeps and never changes. from is one of the host's addresses, or not valid to
// leave it to the host; one that the host does not have any more loses the datagram. The error is a [TooLongError].
func (s *Socket) Send(from netip.Addr, to netip.AddrPort, ecn uint8, payload []byte) error {
	h, n := s.host, s.host.network
	d := &Datagram{From: s.LocalAddr(), To: to, ECN: ecn, Payload: payload}
	if h.interfaceBytes > 0 && d.ipBytes() > h.interfaceBytes {
		return TooLongError(len(payload))
	}
	n.sent++
	n.stats.Sent++
	d.ID = n.sent
	if n.cfg.Sent != nil {
		n.cfg.Sent(h, d)
	}
	if from.IsValid() && from != h.addr {
		n.stats.Unreachable++ // no source address, no way out
		return nil
	}
	n.carry(&h.up, d, func(d *Datagram) { n.cross(h, d) })
	return nil
}

// cross brings a datagram from the end of its sender's link to the beginning of its receiver's.
func (n *Network) cross(from *Host, d *Datagram) {
	if from.nat != nil {
		from.nat.out(d)
	}
	to := n.hosts[d.To.Addr()]
	if nat := n.nats[d.To.Addr()]; nat != nil {
		if to = nat.in(d); to == nil {
			n.stats.Filtered++
			return
		}
	}
	if to == nil {
		n.stats.Unreachable++
		return
	}
	n.carry(&to.down, d, to.arrived)
}

// arrived is told of what has come over the host's link.
func (h *Host) arrived(d *Datagram) {
	s := h.sockets[d.To.Port()]
	if s == nil || d.To.Addr() != h.addr {
		h.network.stats.Unreachable++
		return
	}
	h.network.stats.Arrived++
	if h.network.cfg.Arrived != nil {
		h.network.cfg.Arrived(h, d)
	}
	s.receive(d)
}

package udp

import (
	"fmt"
	"net/netip"
)

// Destination is where to send to and how: a peer's address in the form that the socket's kernel wants, and the address
// and interface to send from. It is made once per path, for one Conn, and never changes.
type Destination struct {
	to    netip.AddrPort
	from  netip.Addr
	index uint32

	name sockaddr
	// control are the control messages for each value of ECN.
	control [ecnMask + 1][]byte
}

// NewDestination makes a Destination of this socket. from is the address to send from (Message.Local of what is
// answered), or not valid to leave it to the kernel; interfaceIndex is the interface to send through, or 0 likewise.
// The error is ErrFamily, or says that a zone is not an interface of the host.
func (c *Conn) NewDestination(to netip.AddrPort, from netip.Addr, interfaceIndex uint32) (*Destination, error) {
	d := &Destination{to: netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), from: from.Unmap(), index: interfaceIndex}
	ipv4, ipv6 := c.backend.families()
	switch a := d.to.Addr(); {
	case !a.IsValid(), a.Is4() && !ipv4, a.Is6() && !ipv6:
		return nil, fmt.Errorf("destination %s: %w", to, ErrFamily)
	case d.from.IsValid() && d.from.Is4() != a.Is4():
		return nil, fmt.Errorf("destination %s from %s: %w", to, from, ErrFamily)
	}
	var err error
	if d.name, err = newSockaddr(d.to, ipv6); err != nil {
		return nil, fmt.Errorf("destination %s: %w", to, err)
	}
	for ecn := range d.control {
		d.control[ecn] = appendSendControl(nil, d, uint8(ecn))
	}
	return d, nil
}

// To returns the peer's address. An IPv4 address is never written as an IPv6 one.
func (d *Destination) To() netip.AddrPort { return d.to }

// From returns the address and interface to send from, as given to NewDestination.
func (d *Destination) From() (from netip.Addr, interfaceIndex uint32) { return d.from, d.index }

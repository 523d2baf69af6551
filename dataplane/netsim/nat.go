package netsim

import (
	"fmt"
	"net/netip"
)

// NATKind says how a NAT maps and filters (RFC 4787 sections 4 and 5; the names are those of RFC 3489 section 5).
type NATKind uint8

// The kinds. All but the last map a socket of the inside to one port, whatever it sends to.
const (
	// FullCone lets everybody in who knows the port.
	FullCone NATKind = iota
	// AddressRestricted lets addresses in that the socket has sent to.
	AddressRestricted
	// PortRestricted lets addresses and ports in that the socket has sent to.
	PortRestricted
	// Symmetric maps each destination to a port of its own, and lets only that one in.
	Symmetric
	// NATKinds is how many kinds there are.
	NATKinds
)

// String names the kind.
func (k NATKind) String() string {
	names := [NATKinds]string{"full cone", "address restricted", "port restricted", "symmetric"}
	if k < NATKinds {
		return names[k]
	}
	return "unknown"
}

// NATConfig says what a NAT is like.
type NATConfig struct {
	Kind NATKind
	// Addr is its address on the outside.
	Addr netip.Addr
	// IdleNanos is how long a mapping lasts after the last datagram from the inside; 0 is for ever.
	IdleNanos int64
}

// NAT is a translator of addresses and ports between hosts and the rest of the network. A host behind it does not reach
// another one behind the same NAT.
type NAT struct {
	network  *Network
	cfg      NATConfig
	hosts    map[netip.Addr]*Host // on the inside
	mappings map[mapped]*mapping
	ports    map[uint16]*mapping // by their port on the outside
}

// mapped is what has a mapping: a socket of the inside, and for a symmetric NAT a destination.
type mapped struct{ inside, to netip.AddrPort }

type mapping struct {
	of     mapped
	port   uint16
	sentTo map[netip.AddrPort]bool
	usedAt int64
}

// AddNAT adds a NAT. The error is [ErrAddress].
func (n *Network) AddNAT(cfg NATConfig) (*NAT, error) {
	t := &NAT{network: n, cfg: cfg, hosts: make(map[netip.Addr]*Host)}
	t.Rebind()
	if !cfg.Addr.IsValid() || n.hosts[cfg.Addr] != nil || n.nats[cfg.Addr] != nil {
		return nil, fmt.Errorf("NAT at %v: %w", cfg.Addr, ErrAddress)
	}
	n.nats[cfg.Addr] = t
	return t, nil
}

// Addr is the address on the outside.
func (t *NAT) Addr() netip.Addr { return t.cfg.Addr }

// Kind is how it maps and filters.
func (t *NAT) Kind() NATKind { return t.cfg.Kind }

// Rebind forgets all mappings, as after a restart. What is sent from the inside next gets new ones, of other ports.
func (t *NAT) Rebind() {
	t.mappings, t.ports = make(map[mapped]*mapping), make(map[uint16]*mapping)
}

// Move gives the NAT another address on the outside and forgets all mappings. The error is [ErrAddress].
func (t *NAT) Move(to netip.Addr) error {
	n := t.network
	if !to.IsValid() || n.hosts[to] != nil || n.nats[to] != nil {
		return fmt.Errorf("NAT at %v: %w", to, ErrAddress)
	}
	delete(n.nats, t.cfg.Addr)
	t.cfg.Addr = to
	n.nats[to] = t
	t.Rebind()
	return nil
}

func (t *NAT) expired(m *mapping) bool {
	return t.cfg.IdleNanos > 0 && t.network.now-m.usedAt >= t.cfg.IdleNanos
}

// out gives a datagram from the inside its address on the outside.
func (t *NAT) out(d *Datagram) {
	of := mapped{inside: d.From}
	if t.cfg.Kind == Symmetric {
		of.to = d.To
	}
	m := t.mappings[of]
	if m != nil && t.expired(m) {
		delete(t.ports, m.port)
		m = nil
	}
	if m == nil {
		m = &mapping{of: of, port: t.freePort(), sentTo: make(map[netip.AddrPort]bool)}
		t.mappings[of], t.ports[m.port] = m, m
	}
	m.usedAt = t.network.now
	m.sentTo[d.To] = true
	if t.cfg.Kind == AddressRestricted {
		m.sentTo[netip.AddrPortFrom(d.To.Addr(), 0)] = true
	}
	d.From = netip.AddrPortFrom(t.cfg.Addr, m.port)
}

// freePort draws a port: one that was in use a moment ago is not likely to be drawn again.
func (t *NAT) freePort() uint16 {
	const first, count = 1024, 1<<16 - 1024
	for {
		if port := uint16(first + t.network.rng.IntN(count)); t.ports[port] == nil {
			return port
		}
	}
}

// in gives a datagram from the outside its address on the inside and returns the host, or nil for one that is kept out.
func (t *NAT) in(d *Datagram) *Host {
	m := t.ports[d.To.Port()]
	if m == nil || t.expired(m) {
		return nil
	}
	from := d.From
	if t.cfg.Kind == AddressRestricted {
		from = netip.AddrPortFrom(from.Addr(), 0)
	}
	if t.cfg.Kind != FullCone && !m.sentTo[from] {
		return nil
	}
	d.To = m.of.inside
	return t.hosts[m.of.inside.Addr()]
}

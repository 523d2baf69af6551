package udp

import "net/netip"

// twin sends what must go in fragments, from the port of a socket that sets DF on all that it sends.
type twin interface {
	// send sends a datagram to an IPv4 address, with the control messages that quic-go writes beside it. Errors are those
	// of package net. A full socket buffer loses datagrams, as networks do.
	send(b, control []byte, to netip.AddrPort) error
	// heardMTU returns how long IP packets to an address may be by what the kernel knows or has been told in ICMP
	// messages, which may be forged; 0 where it does not tell.
	heardMTU(to netip.AddrPort) int
	close() error
}

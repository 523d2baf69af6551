// Package icmp makes the ICMP errors a tunnel endpoint answers packets with that it
// cannot forward (RFC 9484 sections 7.2.1 and 10.1): for IPv4 those of RFC 792 and
// RFC 1191, for IPv6 those of RFC 4443.
//
// Every function returns a whole IP packet, addressed to the source of the packet
// it is about, or nil where no error may be sent: in answer to an ICMP error or a
// redirect, to a fragment other than the first, to a packet to or from an address
// that is not one host's (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 (e)), or to
// something that is not a packet whose headers can be read. The packet it is about
// may be cut short after its headers; it is not changed or kept.
//
// The package is pure: no clock, no state. Limiting the rate, which RFC 1812 section
// 4.3.2.8 and RFC 4443 section 2.4 (f) require, is the caller's part.
package icmp

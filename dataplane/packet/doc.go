// Package packet reads and rewrites inner IP packets in place (RFC 791, RFC 8200): headers, checksums, the
// cutting of super-packets into segments and the joining of segments into super-packets, ECN and the TCP
// maximum segment size. Nothing here allocates per packet, does I/O or knows the time. Only a [Joiner] keeps
// references to packets.
//
// A packet arrives with a checksum that is either full, as on the wire, or partial: the transport checksum
// field holds the ones' complement sum of the pseudo header alone and whoever sends the packet on adds the
// rest. Which of the two it is travels beside the packet, never in it.
package packet

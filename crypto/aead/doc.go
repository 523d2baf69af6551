// Package aead holds the cipher suites that protect lane packets: authenticated encryption, the header protection
// that goes with each (RFC 9001 sections 5.3 and 5.4), the order in which a machine prefers them, and how often one
// key may be used (RFC 9001 section 6.6).
//
// A suite is made of code from the standard library and golang.org/x/crypto alone. Nothing here allocates per packet.
// The package does no I/O and reads no clock.
package aead

// Package lane is the fast lane between two nodes: the form and protection of its packets, and the capsules by which
// two ends agree on one. PROTOCOL.md beside this file is the normative text.
//
// # Packets
//
// A [Sealer] protects one direction of one lane, an [Opener] opens the other. Their packets have the form of a QUIC v1
// short header packet (RFC 9000 section 17.3.1) with an 8-byte connection ID and a 4-byte packet number:
//
//	offset 0   1 byte    fixed bit 1, spin bit 0, reserved 0, key phase = epoch mod 2, packet number length 4
//	       1   8 bytes   destination connection ID
//	       9   4 bytes   low 32 bits of the packet number
//	      13   ...       frames, encrypted
//	       -   16 bytes  authentication tag over all of it
//
// The low five bits of the first byte and the packet number are under header protection (RFC 9001 section 5.4). A
// packet number has 62 bits and never restarts within a lane: not at a ratchet, not at an adoption, and a hand-over to
// another process skips ahead. The nonce is the IV of epoch, lane and direction XOR the packet number.
//
// Frames are those of [ParseFrames]: the usual packet is one DATAGRAM frame, see [ParseDatagram].
//
// # Threads
//
// A Sealer and an Opener are each used by one goroutine at a time; keys come in from any goroutine. Nothing on the way
// of a packet allocates, locks or reads a clock: time is an argument, in nanoseconds of one monotonic clock.
package lane

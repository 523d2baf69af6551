// Package crowd measures a gateway with many peers in one process: how much slower it moves the packets of a few active
// peers because of all the others, and how much memory each peer takes.
//
// A [Crowd] is a [dataplane.Engine] with a NIC of its own, a UDP socket and a lane for every peer, made by the
// negotiation that control uses. The other ends of the lanes are as real as lanes need: they agree on keys, seal, open,
// answer probes and report, over real sockets. Active members have a socket each; those that are idle share one.
//
// Traffic is as TCP makes it: super-packets and long trains of packets, and each member has one of them under way in
// each direction at most, so nothing is lost and the gateway is as busy as can be.
package crowd

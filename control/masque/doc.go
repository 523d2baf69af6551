// Package masque carries IP packets in HTTP/3 as RFC 9484 ("CONNECT-IP") says:
// the client, the server, the capsules they exchange and the QUIC and TLS
// settings both use.
//
// # Shape
//
// A [Session] is one CONNECT-IP request stream after the 2xx answer and is the
// same type at both ends. [Dial] makes one on the client; [Handler], an
// http.Handler, makes one per accepted request on the server. Packets go
// through [Session.SendPacket] and [Session.ReceivePacket], which touch nothing
// but the HTTP datagrams of the stream. Capsules are read and written by
// [Session.Run], which hands every capsule to the caller's function as an
// [Event], in the order of the stream and on the goroutine of Run: a slow
// caller slows the peer down by flow control and nothing is lost or buffered.
//
// # What this package does not do
//
// It is a link, not a router: it does not look into packets beyond the length
// their header claims, decrements no hop limit and checks no address against
// the assigned ones. The dataplane does, for every carrier alike (RFC 9484
// sections 7.2 and 11); the two lists come as [AddressAssignment] and
// [RouteAdvertisement] events, and the ICMP errors to answer with are in dataplane/icmp.
// DATAGRAM capsules (RFC 9297 section 3.5) are neither sent, as RFC 9484
// section 10.1 asks, nor delivered; received ones are counted and skipped.
//
// # Packet sizes
//
// quic-go v0.65.0 accepts a datagram of at most the current packet size less 37
// bytes (1 byte of header, a 20-byte connection ID, a 16-byte tag); the HTTP
// datagram adds the quarter stream ID (1 byte for the first 64 requests) and the
// context ID (1 byte). An inner packet of 1,280 bytes, the least IPv6 may rely
// on, so needs QUIC packets of 1,319 bytes; [PreferredPacketSize] is 1,320.
//
// InitialPacketSize is a floor, not a first guess, and quic-go never goes below
// it again. What happens where the path is smaller depends on who notices:
//
//   - the sender's own interface is too small: the first write of a client fails
//     with EMSGSIZE and so does the dial, at once, if InitialPacketSize was set (as a
//     local INTERNAL_ERROR that quotes the error but does not unwrap to it); if it
//     was left 0 (1,280) quic-go goes on with 1,200;
//   - a router further on is too small: packets carry DF and quic-go's sockets use
//     the PROBE mode, which ignores ICMP, so the packets vanish and the dial ends
//     after the handshake timeout;
//   - a server answers in packets of 1,200 bytes until it has the client's
//     transport parameters and in packets of its own InitialPacketSize from then
//     on, so a server's large setting breaks the handshake of a client that had
//     rightly chosen a small one.
//
// A dialer therefore tries 1,420 first, then 1,320, then 1,200: the next one
// immediately after an error that a smaller size may cure, otherwise alongside after
// [PacketSizeFallbackDelay]. [DialPacketSizes] does so. 1,420 lets inner packets of
// 1,381 bytes through from the start and path MTU discovery up to 1,413, less than
// a lane: hosts that send more before there is one are told, and remember it for
// minutes. 1,200 is the smallest size QUIC allows and passes every path
// of 1,228 bytes (IPv4) or 1,248 (IPv6); path MTU discovery then raises it within
// about six round trips. On smaller paths of IPv4 the socket sends it in fragments, if it
// can: see dataplane/udp. A server answers with the largest of the three that the
// client's Initial has shown to pass: see [InitialSizes]. After a migration quic-go
// starts over from the floor, which is why a large one is worth asking for.
//
// A peer whose connection IDs are longer than 17 bytes leaves quic-go too little
// room for a datagram of the largest size it accepts, and quic-go then drops it
// silently. Ours are 8 bytes; no stock implementation known to us uses more than 16.
package masque

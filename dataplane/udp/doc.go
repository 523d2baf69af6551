// Package udp opens the daemon's UDP sockets, and moves datagrams through them in batches.
//
// [Open] gives a [Conn], which a lane's engine and quic-go share. The engine owns the receive side: one goroutine calls
// [Conn.Receive], keeps what belongs to a lane, and hands everything else to [Conn.Deliver], from where quic-go reads it
// through [Conn.QUIC]. Both send on the same descriptor, at any time and from any goroutine.
//
// On Linux a batch is one system call: recvmmsg with UDP_GRO, where one buffer holds several datagrams of a sender, and
// sendmmsg, with UDP_SEGMENT for long rows. What the kernel lacks is left out and said in [Conn.Offloads]. On other
// systems, or where Linux forbids those calls, one call moves one datagram.
package udp

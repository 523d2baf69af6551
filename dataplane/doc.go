// Package dataplane moves inner IP packets between the virtual NIC and the peers.
//
// An [Engine] owns no policy. The control loop hands it immutable snapshots ([Engine.Apply]) that say which
// addresses belong to which peer, and carriers ([Engine.Attach]) that bring packets to one peer and back. The engine
// classifies, checks addresses, routes, and counts every packet it does not pass on.
//
//	NIC reader ──► egress check, route ──► queue of the peer ──► newest carrier   (one goroutine per carrier)
//	carrier ──► source check, route ──► NIC writer, or queue of another peer      (one goroutine per carrier)
//
// Within a flow nothing is reordered here: it has one peer, a peer has one queue, and one goroutine at a time empties
// it. When a newer carrier takes over, the packet that the older one has in hand may still be under way on it.
//
// A panic while handling a carrier's packets ends that carrier, one while handling the NIC's ends [Engine.Run];
// neither ends the process.
package dataplane

// Package dataplane moves inner IP packets between the virtual NIC and the peers.
//
// An [Engine] owns no policy. The control loop hands it immutable snapshots ([Engine.Apply]) that say which
// addresses belong to which peer; lanes ([Engine.NewLane]), which the engine itself seals, sends, receives and opens in
// batches; and carriers ([Engine.Attach]), which bring single packets to one peer and back where there is no lane. The
// engine classifies, checks addresses, routes, and counts every packet it does not pass on.
//
//	NIC reader ──► route ──► FQ-CoDel queue of the peer ──► cut, seal, send          (one goroutine)
//	                                            └─────────► newest carrier           (one goroutine per carrier)
//	socket ──► open ──► source check, route ──► join ──► NIC, or queue of another peer   (one goroutine per socket)
//	   └─────► QUIC ──► carrier ──► source check, route ──► NIC writer, or queue         (one goroutine per carrier)
//
// Whoever puts packets into a queue sends them too, unless another goroutine is at it: a lane is sealed by the one that
// has its serving flag. What a lane has to say by itself, its keeper (timers) or control puts aside, and a goroutine of
// the engine seals it.
//
// Within a flow nothing is reordered here: it has one peer, a peer has one queue, and one goroutine at a time empties
// it. When a lane takes over from a carrier, or a carrier from another, what the one before has in hand may still be
// under way on it.
//
// Locks are taken per batch, never per packet, and nothing is allocated per packet on the way through lanes.
//
// A panic while handling a carrier's packets ends that carrier, one while handling the NIC's or while serving lanes ends
// [Engine.Run]; neither ends the process. One in [Engine.Receive] is for its caller to handle.
package dataplane

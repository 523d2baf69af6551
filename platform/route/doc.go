// Package route gives our network interface its addresses and sends traffic to it.
//
// The desired state is a [Plan], a value. [Manager.Set] compares it with what the kernel has and makes only
// the difference, so it can be called again at any time. Everything it makes is in the undo journal first and
// carries our routing protocol number, [Protocol].
//
// # How inner traffic finds the interface
//
// Routes live in a table of our own. A policy rule in each family, before the main table, reads
//
//	not fwmark MARK lookup TABLE
//
// so packets of every program are looked up there first, whatever /1 or /32 routes somebody else puts into
// the main table, while the packets of our own sockets, which carry the mark, see only the main table. With
// net.ipv4.conf.all.src_valid_mark the kernel uses the same rule when it validates the source of what comes
// back.
//
// For each of our prefixes the table also holds an unreachable route of a high metric that is not bound to
// the interface. When the daemon dies, the interface and its routes go, the guard stays, and packets for
// tunnel addresses end here instead of leaking to the default route.
//
// The package also looks at the host: free selectors ([Choose]), prefixes in use ([KnownPrefixes],
// [Connected]) and addresses worth putting in an invite ([UsableAddresses]).
//
// All functions act on the network namespace of the calling thread.
package route

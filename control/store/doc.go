// Package store keeps the state of one node on disk: the file state.db (bbolt) and the file node.key, both in
// the state directory and readable by their owner only.
//
// A gateway's state.db holds its network with the CA key, nodes, invites and routes; a member's holds its
// membership. All changes go through [Store.Update] or [Store.Batch]: a transaction is on disk, complete,
// when these return nil, and leaves no trace when they return an error or the process dies before. One
// process at a time can open a state directory.
//
// The file carries a schema version. A newer one is refused with [ErrNewer]; an older one is migrated on
// opening, in one transaction. Records are JSON, so that fields can be added without a migration.
//
// The package keeps what it is given. What the records must mean together is the business of control/admit.
package store

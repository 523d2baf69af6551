// Package admit decides who belongs to a network: it makes the network and its certificate authority, hands
// out invites and admits those who redeem them, gives addresses and names, approves routes, revokes, and
// checks the certificates that sessions are authenticated with.
//
// [Authority] is the gateway's side and lives on top of control/store: every decision is one transaction, on
// disk when the method returns. [NewJoinRequest], [VerifyInvited] and [VerifyGateway] are the member's side.
//
// # Joining
//
// The invitee has the gateway's id from the invite. It takes the gateway's certificate from the TLS handshake
// and checks with [VerifyInvited] that its keys make that id; only then it sends the invite's secret and a
// [JoinRequest], which is signed with both of its keys over bytes exported from the same TLS session, so that
// nobody can carry it to another. The gateway answers with an [Admission].
//
// An answer may get lost. Within the life of the invite the same node may redeem it again: it gets the same
// name and addresses, and no further use is counted. A node that joins by another invite with the same keys
// keeps its name and addresses too.
//
// # Certificates
//
// A node's certificate is X.509, signed by the network's authority (Ed25519), for the node's Ed25519 key. Its
// one URI
//
//	aether://NETWORK-ID/NODE-ID
//
// carries both ids; the common name is for people. It is valid from an hour before it was made, since clocks
// differ, for one year. The gateway's certificate also carries its ML-DSA-65 key, in a private extension, and
// the host names it was asked for.
//
// # Revocation
//
// A revoked node stays on record: its certificates are refused, its keys cannot join again by any invite, and
// its name stays taken. Its addresses are given to others only once the pool has no fresh ones left.
// [Authority.Unrevoke] takes all of that back.
//
// Nothing here reads the clock or the system's randomness: both come in through [Config].
package admit

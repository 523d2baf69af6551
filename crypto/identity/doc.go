// Package identity holds what a node is known by: a pair of long-term keys, Ed25519 (RFC 8032) and ML-DSA-65
// (FIPS 204), and the 32-byte [ID] that commits to both.
//
// Two keys, because each covers the other's weakness: Ed25519 is old and well studied but falls to a quantum
// computer, ML-DSA is meant to withstand one but is young. A hybrid signature ([Private.SignHybrid]) carries
// one signature of each kind and counts only if both verify, so it stands as long as either scheme does.
//
// The Ed25519 half alone also signs TLS handshakes ([Private.Signer]), where no post-quantum signature is
// negotiable yet. Messages under a hybrid signature start with a fixed prefix that neither a TLS signature
// nor an X.509 certificate starts with, so that a signature made for one can never be taken for the other.
//
// The package does no I/O and reads no clock; files are the business of control/store.
package identity

// Package kem is the hybrid key encapsulation that lanes take their secrets from: ML-KEM-768 (FIPS 203) beside X25519
// (RFC 7748). The shared secret stays unknown as long as either of the two holds.
//
//	public key     ML-KEM-768 encapsulation key (1184 bytes) ‖ X25519 public key (32 bytes)
//	ciphertext     ML-KEM-768 ciphertext (1088 bytes)        ‖ X25519 public key (32 bytes), made for this one use
//	shared secret  ML-KEM-768 shared key (32 bytes)          ‖ X25519 shared secret (32 bytes)
//
// This is the form and order of X25519MLKEM768 in TLS 1.3. The shared secret is a concatenation, not yet a key: it must
// go through a key derivation that also takes in both messages, as crypto/keyschedule does.
//
// Private keys are meant for one exchange. The standard library offers no way to overwrite the key objects it makes, so
// this package keeps only the seeds, which it can overwrite, and expands them for the moment of use; what the expansion
// leaves behind is unreachable memory.
package kem

// Package keyschedule derives every key of a lane.
//
// All of it is HKDF with SHA-256 (RFC 5869) and HKDF-Expand-Label of TLS 1.3 (RFC 8446 section 7.1), whose label is
// "tls13 " and the text given below. ‖ joins byte strings with nothing between them. Integers are big-endian and of
// the width given here. SHA256 is the plain hash.
//
//	x           TLS exporter value of the session that made the lane, 32 bytes: label [ExporterLabel],
//	            context SHA256(transcript)
//	shared      ML-KEM-768 shared key (32 bytes) ‖ X25519 shared secret (32 bytes), as package kem makes it
//
//	chain_0   = HKDF-Extract(salt = x, IKM = shared)                                               32 bytes
//	chain_e+1 = HKDF-Extract(salt = chain_e, IKM = shared ‖ SHA256(request ‖ answer))              ratchet
//	chain_e+1 = HKDF-Extract(salt = chain_e, IKM = shared ‖ SHA256(request ‖ answer) ‖ x')         first ratchet
//	            after an adoption; x' is the exporter value of the adopting session, 32 bytes
//
//	traffic   = HKDF-Expand-Label(chain_e, "lane", epoch ‖ lane ‖ direction ‖ suite, 32)
//	            epoch      4 bytes   e, from 0
//	            lane       1 byte    index of the lane, from 0
//	            direction  1 byte    role of the end that seals: 0 client, 1 server
//	            suite      1 byte    wire number of the cipher suite
//
//	key       = HKDF-Expand-Label(traffic, "quic key", "", key length of the suite)                RFC 9001 section 5.1
//	iv        = HKDF-Expand-Label(traffic, "quic iv", "", 12)
//	hp        = HKDF-Expand-Label(traffic of epoch 0, "quic hp", "", key length of the suite)
//	            one for each lane and direction, for as long as the lane lives; not changed by ratchets, as in RFC 9001
//	            section 6. It can be derived only while chain_0 is there, so hp keys of all lanes are made together
//
//	adopt key = HKDF-Expand-Label(chain_e, "adopt", role ‖ e, 32)
//	            role       1 byte    role of the end that sends the MAC: 0 client, 1 server
//	            e          4 bytes   the epoch
//	adopt MAC = HMAC-SHA256(adopt key, x' ‖ lane id)                                               32 bytes
//
// Roles are those of the lane: the client is the end that was client of the session that made it.
//
// A [Chain] is wiped when its epoch ends; every derived secret that this package holds on the way is overwritten
// before the call returns. (What the standard library copies inside HKDF and AES it gives no access to.)
//
// The package does no I/O and reads no clock.
package keyschedule

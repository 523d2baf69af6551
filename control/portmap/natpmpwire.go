package portmap

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Sizes and codes of RFC 6886 sections 3.2 to 3.5.
const (
	natpmpVersion       = 0
	natpmpOpAddress     = 0
	natpmpOpMapUDP      = 1
	natpmpResponseBit   = 128
	natpmpHeaderBytes   = 8
	natpmpAddressBytes  = 12
	natpmpMapBytes      = 16
	natpmpSuccess       = 0
	natpmpBadVersion    = 1
	natpmpUnknownOpcode = 5
)

// natpmpResponse is a parsed response; which of the last fields mean something depends on the opcode.
type natpmpResponse struct {
	opcode       uint8 // without the response bit
	result       uint16
	epoch        uint32 // seconds
	external     netip.Addr
	internalPort uint16
	externalPort uint16
	lifetime     time.Duration
}

// appendNATPMPAddressRequest appends the request for the external address, RFC 6886 section 3.2.
func appendNATPMPAddressRequest(b []byte) []byte { return append(b, natpmpVersion, natpmpOpAddress) }

// appendNATPMPMapRequest appends the request for a UDP mapping, RFC 6886 section 3.3; a lifetime of 0 asks to
// delete and then wants an external port of 0 (section 3.4).
func appendNATPMPMapRequest(b []byte, internalPort, externalPort uint16, lifetime time.Duration) []byte {
	b = append(b, natpmpVersion, natpmpOpMapUDP, 0, 0)
	b = binary.BigEndian.AppendUint16(b, internalPort)
	b = binary.BigEndian.AppendUint16(b, externalPort)
	return binary.BigEndian.AppendUint32(b, lifetimeSeconds(lifetime))
}

// parseNATPMPResponse reads a datagram as a response; false when it is none. A refusal may be as short as the
// header.
func parseNATPMPResponse(b []byte) (r natpmpResponse, ok bool) {
	if len(b) < natpmpHeaderBytes || b[0] != natpmpVersion || b[1] < natpmpResponseBit {
		return natpmpResponse{}, false
	}
	r = natpmpResponse{
		opcode: b[1] - natpmpResponseBit,
		result: binary.BigEndian.Uint16(b[2:]),
		epoch:  binary.BigEndian.Uint32(b[4:]),
	}
	if r.result != natpmpSuccess {
		return r, true
	}
	switch {
	case r.opcode == natpmpOpAddress && len(b) >= natpmpAddressBytes:
		r.external = netip.AddrFrom4([4]byte(b[8:]))
	case r.opcode == natpmpOpMapUDP && len(b) >= natpmpMapBytes:
		r.internalPort = binary.BigEndian.Uint16(b[8:])
		r.externalPort = binary.BigEndian.Uint16(b[10:])
		r.lifetime = time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Second
	default:
		return natpmpResponse{}, false
	}
	return r, true
}

// natpmpReason describes a result code, RFC 6886 section 3.5.
func natpmpReason(result uint16) string {
	switch result {
	case natpmpBadVersion:
		return "version not supported"
	case 2:
		return "not authorized"
	case 3:
		return "network failure"
	case 4:
		return "no resources"
	case natpmpUnknownOpcode:
		return "operation not supported"
	}
	return "unknown result"
}

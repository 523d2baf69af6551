package portmap

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Sizes and codes of RFC 6887 sections 7, 11.1 and 19.
const (
	pcpVersion        = 2
	pcpOpAnnounce     = 0
	pcpOpMap          = 1
	pcpResponseBit    = 0x80
	pcpHeaderBytes    = 24
	pcpMapBytes       = pcpHeaderBytes + 36
	pcpMaxBytes       = 1100
	pcpNonceBytes     = 12
	protocolNumberUDP = 17

	pcpSuccess            = 0
	pcpUnsupportedVersion = 1
)

// pcpMap is the content of a MAP request or response without its header, RFC 6887 section 11.1.
type pcpMap struct {
	nonce        [pcpNonceBytes]byte
	protocol     uint8
	internalPort uint16
	externalPort uint16
	external     netip.Addr // unmapped; unspecified when there is no suggestion
}

// pcpResponse is a parsed response. mapping is meaningful only when hasMap is set.
type pcpResponse struct {
	version  uint8
	opcode   uint8
	result   uint8
	lifetime time.Duration
	epoch    uint32 // seconds
	hasMap   bool
	mapping  pcpMap
}

// appendPCPRequest appends the common request header, RFC 6887 section 7.1.
func appendPCPRequest(b []byte, opcode uint8, lifetime time.Duration, client netip.Addr) []byte {
	b = append(b, pcpVersion, opcode, 0, 0)
	b = binary.BigEndian.AppendUint32(b, lifetimeSeconds(lifetime))
	address := client.As16()
	return append(b, address[:]...)
}

// appendPCPMapRequest appends a whole MAP request; a lifetime of 0 asks to delete.
func appendPCPMapRequest(b []byte, m pcpMap, lifetime time.Duration, client netip.Addr) []byte {
	b = appendPCPRequest(b, pcpOpMap, lifetime, client)
	b = append(b, m.nonce[:]...)
	b = append(b, m.protocol, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, m.internalPort)
	b = binary.BigEndian.AppendUint16(b, m.externalPort)
	address := m.external.As16()
	return append(b, address[:]...)
}

// parsePCPResponse reads a datagram as a response, RFC 6887 section 7.2; false when it is none. It accepts a
// response of another version only as the refusal of ours, which is how a NAT-PMP server answers (RFC 6886
// section 3.5, RFC 6887 appendix A).
func parsePCPResponse(b []byte) (r pcpResponse, ok bool) {
	if len(b) < 4 || b[1]&pcpResponseBit == 0 {
		return pcpResponse{}, false
	}
	if b[0] != pcpVersion {
		// NAT-PMP carries a 16-bit result where PCP has a reserved byte and an 8-bit one: byte 3 serves both.
		if b[3] != pcpUnsupportedVersion {
			return pcpResponse{}, false
		}
		return pcpResponse{version: b[0], opcode: b[1] &^ pcpResponseBit, result: b[3]}, true
	}
	if len(b) < pcpHeaderBytes || len(b) > pcpMaxBytes || len(b)%4 != 0 {
		return pcpResponse{}, false
	}
	r = pcpResponse{
		version:  b[0],
		opcode:   b[1] &^ pcpResponseBit,
		result:   b[3],
		lifetime: time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second,
		epoch:    binary.BigEndian.Uint32(b[8:]),
	}
	if r.opcode == pcpOpMap && len(b) >= pcpMapBytes {
		r.hasMap = true
		r.mapping = parsePCPMap(b[pcpHeaderBytes:pcpMapBytes])
	}
	return r, true
}

func parsePCPMap(b []byte) pcpMap {
	return pcpMap{
		nonce:        [pcpNonceBytes]byte(b),
		protocol:     b[12],
		internalPort: binary.BigEndian.Uint16(b[16:]),
		externalPort: binary.BigEndian.Uint16(b[18:]),
		external:     netip.AddrFrom16([16]byte(b[20:])).Unmap(),
	}
}

// pcpReason describes a result code, RFC 6887 section 7.4.
func pcpReason(result uint8) string {
	switch result {
	case 1:
		return "version not supported"
	case 2:
		return "not authorized"
	case 3:
		return "malformed request"
	case 4:
		return "operation not supported"
	case 5, 6:
		return "option not supported"
	case 7:
		return "network failure"
	case 8:
		return "no resources"
	case 9:
		return "UDP not supported"
	case 10:
		return "quota exceeded"
	case 11:
		return "cannot provide an external port"
	case 12:
		return "address mismatch, there is another translator between this host and the router"
	case 13:
		return "too many peers"
	}
	return "unknown result"
}

// lifetimeSeconds rounds down to whole seconds in the range of the wire.
func lifetimeSeconds(d time.Duration) uint32 {
	return uint32(max(0, min(int64(d/time.Second), 1<<32-1)))
}

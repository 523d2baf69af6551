package packet

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/aethertunnel/aethertunnel/tun"
)

// joinable reports whether p may be in a super-packet at all, and whether it would be the last in it.
func (j *Joiner) joinable(p []byte, partial bool, v view) (opens, ends bool) {
	if v.kind != kindWhole || len(p) == v.headerBytes || !partial && !j.config.VerifyFull {
		return false, false
	}
	if p[0]>>4 == 4 && (p[0] != 0x45 || p[6]&^ipv4DF != 0 || !validIPv4Header(p)) {
		return false, false
	}
	if v.protocol == ProtocolUDP {
		return j.config.UDP && binary.BigEndian.Uint16(p[v.transport+udpChecksumOffset:]) != 0, false
	}
	flags := p[v.transport+tcpFlagsOffset]
	return j.config.TCP && flags&(tcpSYN|tcpRST|tcpURG|tcpACK) == tcpACK, flags&(tcpFIN|tcpPSH) != 0
}

// validIPv4Header checks the checksum of a header without options.
func validIPv4Header(p []byte) bool {
	p = p[:MinIPv4HeaderBytes]
	acc, carry := bits.Add64(binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:]), 0)
	acc, carry = bits.Add64(acc, uint64(binary.LittleEndian.Uint32(p[16:])), carry)
	return fold(acc+carry) == 0xffff
}

// follows reports whether p, which is joinable and of the run's flow, is what comes directly behind the run
// and differs from the first packet only as segments of one super-packet do.
func (j *Joiner) follows(r *run, p []byte, partial bool, v view) bool {
	first := j.pieces[r.first].bytes
	payload := len(p) - v.headerBytes
	if v.headerBytes != int(r.headerBytes) || payload > int(r.segment) ||
		int(r.bytes)+payload > tun.MaxPacketBytes {
		return false
	}
	if p[0]>>4 == 6 {
		if [4]byte(first[0:4]) != [4]byte(p[0:4]) || first[7] != p[7] {
			return false
		}
	} else if !r.followsIPv4(first, p) {
		return false
	}
	if v.protocol == ProtocolTCP && !r.followsTCP(first[r.transport:r.headerBytes], p[v.transport:v.headerBytes]) {
		return false
	}
	if !partial && !validChecksum(p, v) {
		return false
	}
	if !r.partial && !r.verified {
		// Put off until here, since most packets that open a run stay alone where checksums are full.
		if !validChecksum(first, look(first)) {
			return false
		}
		r.verified = true
	}
	return true
}

// followsIPv4 compares type of service, DF bit, time to live and identification, which counts up or, where DF
// makes it meaningless, may stay the same from the second packet on (RFC 6864).
func (r *run) followsIPv4(first, p []byte) bool {
	if first[1] != p[1] || first[6] != p[6] || first[8] != p[8] {
		return false
	}
	id := binary.BigEndian.Uint16(p[4:6])
	if r.fixedID {
		return id == r.id
	}
	if r.count == 1 && id == r.id && p[6]&ipv4DF != 0 {
		r.fixedID = true
		return true
	}
	return id == r.id+r.count
}

// followsTCP compares all of the TCP header but the ports.
func (r *run) followsTCP(first, tcp []byte) bool {
	// Offset, flags and window in one word. CWR may be on the first packet alone, FIN and PSH on the last.
	const mayDiffer = uint32(tcpFIN|tcpPSH) << 16
	a := binary.BigEndian.Uint32(first[12:16]) &^ (tcpCWR << 16)
	b := binary.BigEndian.Uint32(tcp[12:16])
	return binary.BigEndian.Uint32(tcp[4:8]) == r.sequence &&
		[4]byte(first[8:12]) == [4]byte(tcp[8:12]) &&
		(a^b)&^mayDiffer == 0 &&
		[2]byte(first[18:20]) == [2]byte(tcp[18:20]) &&
		bytes.Equal(first[minTCPHeaderBytes:], tcp[minTCPHeaderBytes:])
}

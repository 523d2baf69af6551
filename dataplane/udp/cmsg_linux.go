package udp

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	receivedTOS  = unix.IP_TOS
	sentTOSBytes = 1
)

// segmentBytes returns the size of coalesced datagrams where a control message says one (UDP_GRO): an int, which was
// 16 bits long in the documentation of old kernels.
func segmentBytes(level, kind int32, data []byte) int {
	switch {
	case level != unix.IPPROTO_UDP || kind != unix.UDP_GRO:
	case len(data) >= 4:
		return int(int32(binary.NativeEndian.Uint32(data)))
	case len(data) >= 2:
		return int(binary.NativeEndian.Uint16(data))
	}
	return 0
}

// appendSegment appends the size to cut a send into.
func appendSegment(b []byte, segmentBytes int) []byte {
	b, data := controlMessage(b, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(data, uint16(segmentBytes))
	return b
}

// arrivedNanos returns the time of arrival where a control message tells it (SO_TIMESTAMPNS: seconds and nanoseconds in
// words of the machine).
func arrivedNanos(level, kind int32, data []byte) int64 {
	if level != unix.SOL_SOCKET || kind != unix.SO_TIMESTAMPNS {
		return 0
	}
	switch len(data) {
	case 16:
		return int64(binary.NativeEndian.Uint64(data))*1e9 + int64(binary.NativeEndian.Uint64(data[8:]))
	case 8:
		return int64(int32(binary.NativeEndian.Uint32(data)))*1e9 + int64(binary.NativeEndian.Uint32(data[4:]))
	}
	return 0
}

// isFragmentSize reports whether a control message tells how long the fragments were that a datagram was made of
// (IP_RECVFRAGSIZE).
func isFragmentSize(level, kind int32) bool {
	return level == unix.IPPROTO_IP && kind == unix.IP_RECVFRAGSIZE
}

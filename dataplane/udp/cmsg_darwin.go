package udp

import "golang.org/x/sys/unix"

const (
	receivedTOS  = unix.IP_RECVTOS
	sentTOSBytes = 4
)

// segmentBytes returns 0: this system does not coalesce datagrams.
func segmentBytes(int32, int32, []byte) int { return 0 }

// arrivedNanos returns 0: the time of arrival is not asked for.
func arrivedNanos(int32, int32, []byte) int64 { return 0 }

// isFragmentSize: this system does not tell.
func isFragmentSize(_, _ int32) bool { return false }

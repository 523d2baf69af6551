package udp

import "golang.org/x/sys/unix"

const (
	receivedTOS  = unix.IP_RECVTOS
	sentTOSBytes = 4
)

// segmentBytes returns 0: this system does not coalesce datagrams.
func segmentBytes(int32, int32, []byte) int { return 0 }

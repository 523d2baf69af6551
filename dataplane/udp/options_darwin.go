package udp

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// setConnOptions makes the kernel tell addresses and ECN of what arrives. A socket of one family takes the options of that
// one.
func setConnOptions(raw syscall.RawConn) error {
	var ipv4, ipv6 error
	err := raw.Control(func(fd uintptr) {
		ipv4 = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
		ipv6 = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
	})
	if err == nil && ipv4 != nil && ipv6 != nil {
		err = errors.Join(ipv4, ipv6)
	}
	if err != nil {
		return fmt.Errorf("set options of UDP socket: %w", err)
	}
	return nil
}

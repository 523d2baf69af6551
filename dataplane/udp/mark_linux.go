package udp

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// SetMark gives a socket a firewall mark (SO_MARK); 0 leaves it without. The error is ErrMark where the process lacks
// CAP_NET_ADMIN (or, since Linux 5.17, CAP_NET_RAW).
func SetMark(raw syscall.RawConn, mark uint32) error {
	if mark == 0 {
		return nil
	}
	var markErr error
	if err := raw.Control(func(fd uintptr) {
		markErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	}); err != nil {
		return fmt.Errorf("set firewall mark: %w", err)
	}
	switch {
	case errors.Is(markErr, os.ErrPermission):
		return ErrMark
	case markErr != nil:
		return fmt.Errorf("set firewall mark: %w", markErr)
	}
	return nil
}

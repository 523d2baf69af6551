package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// exitPoll is how often the wait for the daemon's end looks whether it is still wanted.
const exitPoll = 50 * time.Millisecond

// watchExit finds the process that listens on the socket. The kernel is asked, not the daemon: a number from another PID
// namespace would name somebody else here. The file is nil when the process cannot be seen from here.
func (c *Client) watchExit(ctx context.Context) (*os.File, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", SocketPath(c.state))
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer conn.Close()                             //nolint:errcheck // nothing was written
	raw, err := conn.(*net.UnixConn).SyscallConn() //nolint:forcetypeassert // what dialing "unix" gives
	if err != nil {
		return nil, fmt.Errorf("find the daemon's process: %w", err)
	}
	var peer *unix.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, peerErr); err != nil {
		return nil, fmt.Errorf("find the daemon's process: %w", err)
	}
	if peer.Pid <= 0 {
		return nil, nil // it lives in a PID namespace that is not below ours
	}
	process, err := unix.PidfdOpen(int(peer.Pid), 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOSYS) {
		return nil, nil // it has ended just now, or the kernel is older than 5.3
	}
	if err != nil {
		return nil, fmt.Errorf("find the daemon's process: %w", err)
	}
	return os.NewFile(uintptr(process), "pidfd"), nil
}

// awaitExit waits until the process has ended, whether or not its parent has taken note of that.
func awaitExit(ctx context.Context, process *os.File) error {
	for {
		watched := []unix.PollFd{{Fd: int32(process.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(watched, int(exitPoll.Milliseconds()))
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

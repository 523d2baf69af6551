package netmon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
		1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1)
	readBytes = 64 << 10
)

// errOverrun: the kernel dropped messages because the receive buffer was full.
var errOverrun = errors.New("netlink receive buffer overrun")

// run subscribes anew as long as the kernel drops messages.
func (m *Monitor) run(ctx context.Context) error {
	events := &coalescer{quiet: m.cfg.Quiet, latest: m.cfg.Latest}
	for ctx.Err() == nil {
		err := m.subscription(ctx, events)
		if !errors.Is(err, errOverrun) {
			return err
		}
		events.add(time.Now(), Change{Address: true, Link: true, Default: true, Lost: true})
	}
	return nil
}

// subscription is the life of one socket. After an overrun what is known is out of date, so the caller starts
// anew.
func (m *Monitor) subscription(ctx context.Context, events *coalescer) (err error) {
	file, err := m.subscribe()
	if err != nil {
		return fmt.Errorf("watch the network: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		// Cannot fail: the file is closed only after this has ended.
		_ = file.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-interrupted
		}
	}()
	known, err := snapshot(m.cfg.Ignore)
	if err != nil {
		return fmt.Errorf("watch the network: %w", err)
	}
	m.announce()
	return m.read(ctx, file, known, events)
}

func (m *Monitor) announce() {
	m.subscribed()
	select {
	case <-m.ready:
	default:
		close(m.ready)
	}
}

// subscribe opens the socket on the calling thread, so in its network namespace. It comes before the
// snapshot, so that nothing falls between the two.
func (m *Monitor) subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, m.receiveBytes)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

func (m *Monitor) read(ctx context.Context, file *os.File, known *view, events *coalescer) error {
	buffer := make([]byte, readBytes)
	for {
		if change, ok := events.take(time.Now()); ok {
			m.send(change)
		}
		deadline, _ := events.due()
		if err := file.SetReadDeadline(deadline); err != nil {
			return fmt.Errorf("watch the network: %w", err)
		}
		// Looked at after the deadline is set: an end of ctx before that would have been overwritten.
		select {
		case <-ctx.Done():
			return nil
		default:
		}
		n, err := receive(file, buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case errors.Is(err, unix.ENOBUFS), n == len(buffer):
			return errOverrun
		case err != nil:
			return fmt.Errorf("watch the network: %w", err)
		}
		change, err := known.apply(buffer[:n])
		if err != nil {
			return fmt.Errorf("watch the network: %w", err)
		}
		events.add(time.Now(), change)
	}
}

// receive reads one datagram; those that do not come from the kernel count as empty.
func receive(file *os.File, buffer []byte) (n int, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var from unix.Sockaddr
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, from, readErr = unix.Recvfrom(int(fd), buffer, 0)
			if !errors.Is(readErr, syscall.EINTR) {
				return !errors.Is(readErr, syscall.EAGAIN)
			}
		}
	})
	if err := errors.Join(err, readErr); err != nil {
		return 0, err
	}
	if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
		return 0, nil
	}
	return n, nil
}

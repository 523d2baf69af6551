//go:build !linux

package udp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"
)

func openBackend(ctx context.Context, cfg Config, stats *counters) (backend, error) {
	return openPortable(ctx, cfg, stats, "not available on "+runtime.GOOS)
}

// sockaddr is package net's affair here.
type sockaddr struct{}

func newSockaddr(netip.AddrPort, bool) (sockaddr, error) { return sockaddr{}, nil }

func setConnBuffer(conn *net.UDPConn, _ syscall.RawConn, which buffer, bytes int) error {
	set := conn.SetReadBuffer
	if which == sendBuffer {
		set = conn.SetWriteBuffer
	}
	if err := set(bytes); err != nil {
		return fmt.Errorf("set buffer of UDP socket: %w", err)
	}
	return nil
}

// connBuffers does not tell.
func connBuffers(syscall.RawConn) (receiveBytes, sendBytes int) { return 0, 0 }

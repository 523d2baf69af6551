// Package udp opens the daemon's UDP sockets.
package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// ErrPortInUse means that another program has the UDP port.
var ErrPortInUse = errors.New("UDP port is in use by another program")

// ErrPermission means that the process may not bind the port.
var ErrPermission = errors.New("not permitted to bind the UDP port")

// ErrAddress means that the host does not have the address.
var ErrAddress = errors.New("this machine does not have the address")

// Config says how to open a socket.
type Config struct {
	// Address is where to bind. An address that is not valid means all addresses of both families, or of IPv4
	// alone where the host has no IPv6.
	Address netip.AddrPort
	// Mark is the firewall mark of everything sent (Linux SO_MARK); 0 for none.
	Mark uint32
}

// Listen opens a socket. The error is ErrPortInUse, ErrPermission or ErrAddress where that is the cause.
func Listen(ctx context.Context, cfg Config) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return SetMark(raw, cfg.Mark) }}
	network, address := where(cfg.Address)
	pc, err := lc.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("listen on UDP %s: %w", address, bindError(err))
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen on UDP %s: unexpected socket type %T", address, pc), pc.Close())
	}
	return conn, nil
}

// where turns an address into net's words.
func where(a netip.AddrPort) (network, address string) {
	switch {
	case !a.Addr().IsValid():
		return "udp", fmt.Sprintf(":%d", a.Port())
	case a.Addr().Is4():
		return "udp4", a.String()
	}
	return "udp6", a.String()
}

func bindError(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return ErrPortInUse
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return ErrPermission
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ErrAddress
	}
	return err
}

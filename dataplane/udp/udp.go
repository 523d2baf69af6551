package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// Config says how to open a socket.
type Config struct {
	// Address is where to bind. An address that is not valid means all addresses of both families, or of IPv4
	// alone where the host has no IPv6. 0.0.0.0 and :: mean all of that one family.
	Address netip.AddrPort
	// Mark is the firewall mark of everything sent (Linux SO_MARK); 0 for none.
	Mark uint32

	// What follows is for Open alone.

	// ReceiveBufferBytes and SendBufferBytes are the sizes asked of the kernel, past its limits for users where the
	// process may (SO_RCVBUFFORCE). 0 means 7 MiB, which is what quic-go wants; a negative one leaves the kernel's own
	// as it was. The kernel counts its overhead too and reports twice what it was asked for.
	ReceiveBufferBytes, SendBufferBytes int
	// QUICQueuePackets bounds the datagrams that wait for quic-go; 0 means 1024. As many as ever
	// waited at a time stay allocated, at 1.5 KiB each.
	QUICQueuePackets int
	// WithoutSegmentation, WithoutCoalescing and WithoutBatch switch fast paths off, for hosts where they misbehave.
	// Without batches the other two are off as well.
	WithoutSegmentation, WithoutCoalescing, WithoutBatch bool
}

// Listen opens a socket. The error is ErrPortInUse, ErrPermission, ErrAddress or ErrMark where that is the cause.
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

// where turns an address into net's words. An IPv4-mapped IPv6 address is an IPv4 one.
func where(a netip.AddrPort) (network, address string) {
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
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
	case errors.Is(err, ErrMark):
		return ErrMark
	case errors.Is(err, errInUse):
		return ErrPortInUse
	case errors.Is(err, errForbidden), errors.Is(err, os.ErrPermission):
		return ErrPermission
	case errors.Is(err, errNoAddress):
		return ErrAddress
	}
	return err
}

package daemon

import (
	"context"
	"net"
	"syscall"

	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

// markedResolver looks names up past the tunnel: its sockets carry our mark, so that the gateway's name can be found
// while the tunnel that DNS servers may be behind is down.
func markedResolver(mark uint32) *net.Resolver {
	dialer := net.Dialer{
		Control: func(_, _ string, raw syscall.RawConn) error { return udp.SetMark(raw, mark) },
	}
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
	}
}

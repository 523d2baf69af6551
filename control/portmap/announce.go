package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// announcementListener hears what routers tell all hosts after a restart or with a new external address: PCP
// ANNOUNCE (RFC 6887 section 14.1.3) and the NAT-PMP address announcement (RFC 6886 section 3.2.1).
type announcementListener struct {
	router  netip.Addr
	port    uint16
	dropped *atomic.Uint64
}

// listen runs until ctx ends. Other programs listen on the same port, which the standard library allows for
// multicast addresses; where it fails anyway, renewal alone keeps the mapping.
func (l *announcementListener) listen(ctx context.Context, found chan<- announcement) (err error) {
	var config net.ListenConfig
	group := netip.AddrPortFrom(netip.AddrFrom4([4]byte{224, 0, 0, 1}), l.port)
	packetConn, err := config.ListenPacket(ctx, "udp4", group.String())
	if err != nil {
		return fmt.Errorf("listen for announcements: %w", err)
	}
	conn, ok := packetConn.(*net.UDPConn)
	if !ok {
		return errors.Join(errors.New("announcement socket is not UDP"), packetConn.Close())
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, maxDatagramBytes)
	for {
		n, source, err := conn.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read announcement: %w", err)
		}
		if source.Addr().Unmap() != l.router {
			continue
		}
		a, ok := parseAnnouncement(buf[:n])
		if !ok {
			continue
		}
		a.at = time.Now()
		select {
		case found <- a:
		default:
			l.dropped.Add(1)
		}
	}
}

// parseAnnouncement reads an unsolicited message; false when it is none.
func parseAnnouncement(b []byte) (announcement, bool) {
	if r, ok := parsePCPResponse(b); ok && r.version == pcpVersion {
		return announcement{protocol: PCP, epoch: r.epoch}, r.opcode == pcpOpAnnounce && r.result == pcpSuccess
	}
	if r, ok := parseNATPMPResponse(b); ok {
		return announcement{protocol: NATPMP, epoch: r.epoch},
			r.opcode == natpmpOpAddress && r.result == natpmpSuccess
	}
	return announcement{}, false
}

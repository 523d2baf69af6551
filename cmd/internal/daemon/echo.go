package daemon

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// echoRetry is the pause between echo requests.
const echoRetry = 200 * time.Millisecond

// echo sends ICMP echo requests (RFC 792, RFC 4443 section 4.1) to target until one is answered and returns its round trip.
func echo(ctx context.Context, target netip.Addr) (time.Duration, error) {
	network, protocol, request, reply := "ip4:icmp", 1, icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply)
	if target.Is6() {
		network, protocol, request, reply = "ip6:ipv6-icmp", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	conn, err := net.Dial(network, target.String())
	if errors.Is(err, fs.ErrPermission) {
		return 0, fmt.Errorf("ping %s: not permitted, give the process CAP_NET_RAW to see at once whether packets pass", target)
	}
	if err != nil {
		return 0, fmt.Errorf("ping %s: %w", target, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) }) // fails only when closed
	defer stop()
	defer conn.Close() //nolint:errcheck // nothing was buffered
	var id [2]byte
	if _, err := rand.Read(id[:]); err != nil {
		return 0, fmt.Errorf("ping %s: %w", target, err)
	}
	buffer := make([]byte, 1500)
	for sequence := 1; ; sequence++ {
		message := icmp.Message{Type: request, Body: &icmp.Echo{ID: int(binary.BigEndian.Uint16(id[:])), Seq: sequence}}
		packet, err := message.Marshal(nil) // the kernel fills in the checksum of ICMPv6
		if err != nil {
			return 0, fmt.Errorf("ping %s: %w", target, err)
		}
		sent := time.Now()
		if _, err := conn.Write(packet); err != nil && ctx.Err() != nil {
			return 0, fmt.Errorf("ping %s: %w", target, err)
		}
		until := sent.Add(echoRetry)
		for time.Now().Before(until) && ctx.Err() == nil {
			if err := conn.SetReadDeadline(until); err != nil {
				return 0, fmt.Errorf("ping %s: %w", target, err)
			}
			n, err := conn.Read(buffer)
			if err != nil {
				break // no answer yet
			}
			if answered(buffer[:n], protocol, reply, message) {
				return time.Since(sent), nil
			}
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("ping %s: no answer within %s", target, echoLimit)
		}
	}
}

// answered reports whether a received packet is the reply to request.
func answered(packet []byte, protocol int, reply icmp.Type, request icmp.Message) bool {
	if protocol == 1 { // raw IPv4 sockets hand out the IP header too
		header, err := ipv4.ParseHeader(packet)
		if err != nil || header.Len > len(packet) {
			return false
		}
		packet = packet[header.Len:]
	}
	got, err := icmp.ParseMessage(protocol, packet)
	if err != nil || got.Type != reply {
		return false
	}
	a, ok := got.Body.(*icmp.Echo)
	b := request.Body.(*icmp.Echo) //nolint:forcetypeassert // made by us
	return ok && a.ID == b.ID && a.Seq == b.Seq
}

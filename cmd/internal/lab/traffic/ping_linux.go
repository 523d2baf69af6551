package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Ping measures round trips of ICMP echo requests, for IPv4 (RFC 792) and IPv6 (RFC 4443). It needs
// CAP_NET_RAW. The zero value sends one request.
type Ping struct {
	Count    int           // requests, sent one after the other; 0 is 1
	Interval time.Duration // from one request to the next; 0 sends one as soon as the last is answered
	Bytes    int           // payload of each request without ICMP header, at least 8; 0 is 56
	Timeout  time.Duration // until a request counts as lost; 0 is 1 s
	// DontFragment forbids to fragment requests on the way, and at the sender even if the path is known to
	// be too small.
	DontFragment bool
}

// PingResult is what became of the requests.
type PingResult struct {
	Sent     int64
	Received int64 // answered in time
	RTT      Distribution
	// Errors are the ICMP errors that requests met, up to 16, oldest first. A request
	// that meets one counts as lost at once.
	Errors []ICMPError
}

// Lost returns how many requests were not answered in time.
func (r PingResult) Lost() int64 { return r.Sent - r.Received }

// maxPingErrors bounds the errors kept.
const maxPingErrors = 16

// Run sends requests from the host to an address, which may have a zone.
func (p Ping) Run(ctx context.Context, host Host, to netip.Addr) (PingResult, error) {
	p.Count = max(p.Count, 1)
	if p.Bytes == 0 {
		p.Bytes = 56
	}
	if p.Timeout == 0 {
		p.Timeout = time.Second
	}
	result, err := p.run(ctx, host, to.Unmap())
	if err != nil {
		return result, fmt.Errorf("ping %v: %w", to, err)
	}
	return result, nil
}

func (p Ping) run(ctx context.Context, host Host, to netip.Addr) (result PingResult, err error) {
	if p.Bytes < tokenBytes || p.Bytes > maxMessageBytes-icmpHeaderBytes {
		return result, fmt.Errorf("requests of %d bytes, want %d to %d",
			p.Bytes, tokenBytes, maxMessageBytes-icmpHeaderBytes)
	}
	conn, err := listenICMP(host, to.Is6(), p.DontFragment)
	if err != nil {
		return result, err
	}
	g := newGuard(ctx, conn, 0)
	defer func() { err = g.end(err) }()
	address := &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}
	x := pinger{Ping: p, conn: conn, to: address, echo: newICMPEcho(to.Is6())}
	var samples []time.Duration
	for i := range p.Count {
		began := time.Now()
		result.Sent++
		rtt, failure, err := x.once(uint16(i))
		switch {
		case err != nil:
			return result, err
		case failure != nil && len(result.Errors) < maxPingErrors:
			result.Errors = append(result.Errors, *failure)
		case rtt > 0:
			result.Received++
			samples = append(samples, rtt)
			result.RTT = NewDistribution(samples)
		}
		if i+1 < p.Count {
			if err := wait(ctx, p.Interval-time.Since(began)); err != nil {
				return result, err
			}
		}
	}
	return result, nil
}

// pinger is one run of a Ping.
type pinger struct {
	Ping
	conn *net.IPConn
	to   *net.IPAddr
	echo icmpEcho
}

// once sends a request and waits. It returns the round trip time, or the ICMP error that came, or
// neither.
func (p pinger) once(number uint16) (time.Duration, *ICMPError, error) {
	request := p.echo.encode(number, p.Bytes)
	began := time.Now()
	if err := p.conn.SetReadDeadline(began.Add(p.Timeout)); err != nil {
		return 0, nil, err
	}
	if _, err := p.conn.WriteTo(request, p.to); err != nil {
		if transient(err) || errors.Is(err, unix.EMSGSIZE) {
			return 0, nil, nil // no route or too long for the first link: lost before it left
		}
		return 0, nil, err
	}
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := p.conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, nil, nil
		}
		if err != nil {
			return 0, nil, err
		}
		answer, ok := p.echo.parse(buffer[:n])
		if !ok || answer.number != number {
			continue
		}
		if answer.failure == nil {
			return max(time.Since(began), 1), nil, nil
		}
		if at, ok := from.(*net.IPAddr); ok {
			answer.failure.From, _ = netip.AddrFromSlice(at.IP)
			answer.failure.From = answer.failure.From.Unmap()
		}
		return 0, answer.failure, nil
	}
}

// wait sleeps unless the context ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(max(0, d))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// listenICMP opens a raw ICMP socket. It is not connected: ICMP errors come from any router.
func listenICMP(host Host, v6, dontFragment bool) (*net.IPConn, error) {
	network, address := "ip4:icmp", "0.0.0.0"
	if v6 {
		network, address = "ip6:ipv6-icmp", "::"
	}
	var conn *net.IPConn
	err := host.Do(func() error {
		prepare := func(fd int) error { return setFragmenting(fd, v6, dontFragment) }
		config := net.ListenConfig{Control: control(prepare)}
		var err error
		conn, err = as[*net.IPConn](config.ListenPacket(context.Background(), network, address))
		return err
	})
	return conn, err
}

// setFragmenting either forbids all fragmenting, and lets requests ignore what the kernel has learnt of
// the path's MTU, or allows it everywhere (ip(7), IP_MTU_DISCOVER).
func setFragmenting(fd int, v6, dontFragment bool) error {
	discover, forbid := unix.IP_PMTUDISC_DONT, 0
	if dontFragment {
		discover, forbid = unix.IP_PMTUDISC_PROBE, 1
	}
	var err error
	if v6 {
		err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, discover),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, forbid))
	} else {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, discover)
	}
	if err != nil {
		return fmt.Errorf("set fragmenting: %w", err)
	}
	return nil
}

package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	// searchWindow is how long answers to a search are awaited, searchRepeat when it is sent a second time.
	searchWindow = 2500 * time.Millisecond
	searchRepeat = 800 * time.Millisecond
	// maxSearchAnswers bounds the datagrams read in one search, maxLocations the routers kept from it.
	maxSearchAnswers = 64
	maxLocations     = 3
	// ssdpHops keeps the search in the house (UPnP Device Architecture 1.1, section 1.3.2).
	ssdpHops = 2
)

// searcher looks for UPnP routers on the LAN of the local address.
type searcher struct {
	gateway, local netip.Addr
	// targets are the addresses that get the search: the multicast group and the router itself.
	targets []netip.AddrPort
	control controlFunc
}

// search gives the descriptions of routers that answered. An answer of the default router ends it at once and
// stands alone; otherwise up to three others on the same LAN are given after the window.
func (s *searcher) search(ctx context.Context) (_ []location, err error) {
	lan, err := lanPrefix(s.local)
	if err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: s.control}
	packetConn, err := config.ListenPacket(ctx, "udp4", netip.AddrPortFrom(s.local, 0).String())
	if err != nil {
		return nil, fmt.Errorf("open search socket: %w", err)
	}
	conn, ok := packetConn.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(errors.New("search socket is not UDP"), packetConn.Close())
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := useInterface(conn, s.local); err != nil {
		return nil, err
	}
	return s.collect(ctx, conn, lan)
}

func (s *searcher) collect(ctx context.Context, conn *net.UDPConn, lan netip.Prefix) ([]location, error) {
	end := time.Now().Add(searchWindow)
	repeat := time.Now().Add(searchRepeat)
	if err := s.send(conn); err != nil {
		return nil, err
	}
	var others []location
	buf := make([]byte, maxDatagramBytes)
	for range maxSearchAnswers {
		n, source, err := s.read(ctx, conn, buf, repeat, end)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, err
		}
		if source != s.gateway && !lan.Contains(source) {
			continue
		}
		description, ok := parseSSDPResponse(buf[:n], source)
		switch {
		case !ok:
		case source == s.gateway:
			return []location{{description}}, nil
		case len(others) < maxLocations && !contains(others, description):
			others = append(others, location{description})
		}
	}
	if len(others) == 0 {
		return nil, errNoAnswer
	}
	return others, nil
}

// read waits for the next datagram until end; at repeat it sends the search once more.
func (s *searcher) read(ctx context.Context, conn *net.UDPConn, buf []byte, repeat, end time.Time,
) (int, netip.Addr, error) {
	for {
		deadline := end
		resend := time.Now().Before(repeat)
		if resend {
			deadline = repeat
		}
		if err := conn.SetDeadline(deadline); err != nil {
			return 0, netip.Addr{}, fmt.Errorf("set deadline: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return 0, netip.Addr{}, err
		}
		n, source, err := conn.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil:
			return n, source.Addr().Unmap(), nil
		case ctx.Err() != nil:
			return 0, netip.Addr{}, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded) && resend:
			if err := conn.SetDeadline(end); err != nil {
				return 0, netip.Addr{}, fmt.Errorf("set deadline: %w", err)
			}
			if err := s.send(conn); err != nil {
				return 0, netip.Addr{}, err
			}
		case isRefused(err):
			// The router has no SSDP on its own address; the group may still answer.
		default:
			return 0, netip.Addr{}, err
		}
	}
}

// send sends every search to every target; it fails when none could be sent.
func (s *searcher) send(conn *net.UDPConn) error {
	var failures []error
	sent := false
	for _, target := range s.targets {
		for _, what := range ssdpTargets() {
			if _, err := conn.WriteToUDPAddrPort(ssdpSearch(target, what), target); err != nil {
				failures = append(failures, err)
				continue
			}
			sent = true
		}
	}
	if sent {
		return nil
	}
	return fmt.Errorf("send search: %w", errors.Join(failures...))
}

func contains(list []location, u *url.URL) bool {
	for _, l := range list {
		if l.description.String() == u.String() {
			return true
		}
	}
	return false
}

// useInterface makes multicast leave through the interface that has the local address.
func useInterface(conn *net.UDPConn, local netip.Addr) error {
	name, _, err := findInterface(local)
	if err != nil {
		return err
	}
	p := ipv4.NewPacketConn(conn)
	if err := p.SetMulticastInterface(name); err != nil {
		return fmt.Errorf("choose interface %s: %w", name.Name, err)
	}
	if err := p.SetMulticastTTL(ssdpHops); err != nil {
		return fmt.Errorf("set hop limit: %w", err)
	}
	return nil
}

// lanPrefix gives the network of the interface that has the local address.
func lanPrefix(local netip.Addr) (netip.Prefix, error) {
	_, prefix, err := findInterface(local)
	return prefix, err
}

// findInterface gives the interface whose network holds the local address.
func findInterface(local netip.Addr) (*net.Interface, netip.Prefix, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, netip.Prefix{}, fmt.Errorf("list interfaces: %w", err)
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			// An interface that vanished meanwhile is not the one we look for.
			continue
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err == nil && (prefix.Addr() == local || local.IsLoopback() && prefix.Contains(local)) {
				return &i, prefix.Masked(), nil
			}
		}
	}
	return nil, netip.Prefix{}, fmt.Errorf("no interface has the address %s", local)
}

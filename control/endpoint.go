package control

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// maxEndpoints bounds how many addresses are tried in one race.
const maxEndpoints = 32

// Resolver turns a host name into addresses. *net.Resolver does.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// resolve lists the addresses behind any of the given HOST:PORT, names looked up anew. The error joins what was
// wrong with each and is returned only when no address is left.
func resolve(ctx context.Context, resolver Resolver, hosts []string) ([]netip.AddrPort, error) {
	var addresses []netip.AddrPort
	var failed failures
	for _, hostport := range hosts {
		found, err := resolveOne(ctx, resolver, hostport)
		if err != nil {
			failed = append(failed, err)
		}
		for _, a := range found {
			if !slices.Contains(addresses, a) && len(addresses) < maxEndpoints {
				addresses = append(addresses, a)
			}
		}
	}
	if len(addresses) == 0 {
		return nil, failed
	}
	return addresses, nil
}

func resolveOne(ctx context.Context, resolver Resolver, hostport string) ([]netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, fmt.Errorf("gateway address %q: %w", hostport, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("gateway address %q: bad port", hostport)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), uint16(port))}, nil
	}
	found, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up gateway %s: %w", host, err)
	}
	out := make([]netip.AddrPort, 0, len(found))
	for _, a := range found {
		out = append(out, netip.AddrPortFrom(a.Unmap(), uint16(port)))
	}
	return out, nil
}

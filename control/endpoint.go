package control

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// maxEndpoints bounds how many addresses are tried in one race.
const maxEndpoints = 32

// Resolver turns a host name into addresses. *net.Resolver does.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// lookupLimit bounds one look-up, so that a dead name server does not keep us from the addresses that need none.
const lookupLimit = 2 * time.Second

// resolve lists the addresses behind any of the given HOST:PORT, names looked up anew, all at once. The error joins what
// was wrong with each and is returned only when no address is left.
func resolve(ctx context.Context, resolver Resolver, hosts []string) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	found := make([][]netip.AddrPort, len(hosts))
	errs := make([]error, len(hosts))
	var lookups sync.WaitGroup
	for i, hostport := range hosts {
		lookups.Go(func() {
			errs[i] = recovered(func() (err error) {
				found[i], err = resolveOne(ctx, resolver, hostport)
				return err
			})
		})
	}
	lookups.Wait()
	var addresses []netip.AddrPort
	var failed failures
	for i := range hosts {
		if errs[i] != nil {
			failed = append(failed, errs[i])
		}
		for _, a := range found[i] {
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

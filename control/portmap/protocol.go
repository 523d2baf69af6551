package portmap

import (
	"context"
	"net/netip"
	"time"
)

// protocol is one way to ask the router. The methods are called one at a time, except that the probes of
// different protocols run beside each other.
type protocol interface {
	name() Protocol
	// probe asks whether the router speaks the protocol and changes nothing there.
	probe(ctx context.Context) error
	// acquire creates or renews the mapping.
	acquire(ctx context.Context, want request) (lease, error)
	// release deletes the mapping.
	release(ctx context.Context) error
	// announced reports whether an announcement means that the router lost the mapping.
	announced(a announcement) bool
}

// request is what is asked for.
type request struct {
	// external is the wanted port, and the address that was granted before, if any.
	external netip.AddrPort
	lifetime time.Duration
}

// lease is what the router granted.
type lease struct {
	external  netip.AddrPort
	lifetime  time.Duration
	permanent bool
}

// announcement is an unsolicited message of the router with its epoch.
type announcement struct {
	protocol Protocol
	epoch    uint32 // seconds
	at       time.Time
}

// isPublic reports whether an address can be reached from the Internet: no private, shared, link-local,
// loopback, benchmark or reserved one (RFC 6890). Documentation prefixes count as public, since nobody
// assigns them by mistake.
func isPublic(a netip.Addr) bool {
	if !a.Is4() || a.IsPrivate() || !a.IsGlobalUnicast() || isShared(a) {
		return false
	}
	b := a.As4()
	switch {
	case b[0] == 0, b[0] >= 240, b[0] == 192 && b[1] == 0 && b[2] == 0, b[0] == 198 && b[1]&^1 == 18:
		return false
	}
	return true
}

// isShared reports whether an address is of the providers' shared space, RFC 6598.
func isShared(a netip.Addr) bool {
	b := a.As4()
	return b[0] == 100 && b[1]&0xc0 == 64
}

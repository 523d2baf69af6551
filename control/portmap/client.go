package portmap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// Protocol names the protocol that granted a mapping.
type Protocol string

// The protocols, in the order of preference.
const (
	PCP    Protocol = "PCP"
	NATPMP Protocol = "NAT-PMP"
	UPnP   Protocol = "UPnP"
)

const (
	// DefaultLifetime is requested when Config names none: long enough to be cheap, short enough that a router
	// forgets the mapping of a host that crashed.
	DefaultLifetime = 30 * time.Minute
	// MinLifetime is the shortest Config.Lifetime.
	MinLifetime = 2 * time.Minute
	// MaxLifetime is the longest Config.Lifetime; a router's longer grant is treated as it.
	MaxLifetime = 24 * time.Hour
	// ReleaseTimeout bounds how long Run takes to remove the mapping after its context has ended.
	ReleaseTimeout = 3 * time.Second
)

// The well-known places: RFC 6887 section 19.1 and the UPnP Device Architecture.
const (
	routerPort       = 5351
	announcementPort = 5350
	ssdpPort         = 1900
)

type controlFunc = func(network, address string, c syscall.RawConn) error

// Config says what to map and how to reach the router. Gateway, LocalAddr and InternalPort are required.
type Config struct {
	// Gateway is the default router's IPv4 address, as the caller's routing table knows it.
	Gateway netip.Addr
	// LocalAddr is this host's IPv4 address on the router's network; every socket is bound to it.
	LocalAddr netip.Addr
	// InternalPort is the UDP port to be reached; the same port is asked for outside.
	InternalPort uint16
	// Lifetime is the lifetime to ask for; 0 means DefaultLifetime.
	Lifetime time.Duration
	// Nonce binds the mapping to its owner in PCP (RFC 6887 section 11.1). A caller that keeps the same value
	// over restarts can renew and delete the mapping of a run that crashed; zero means a random one for this
	// Client.
	Nonce [12]byte
	// Description is shown by UPnP routers beside the mapping; empty means "aetherd".
	Description string
	// Control, if not nil, is called on every socket before it is bound, for socket options such as a firewall
	// mark.
	Control func(network, address string, c syscall.RawConn) error
	// OnEvent, if not nil, is called from Run's goroutine whenever the external address, the protocol or the
	// trouble changes, at the end of Run with the zero Event. It must not block.
	OnEvent func(Event)
	// Logger, if not nil, gets debug and warning records; no record is a secret.
	Logger *slog.Logger
}

// Mapping is a forwarded port.
type Mapping struct {
	// External is the address and port that lead to this host from outside.
	External netip.AddrPort
	// Protocol is the one that granted it.
	Protocol Protocol
	// Expires is when the router forgets the mapping unless it is renewed; zero for a permanent one.
	Expires time.Time
}

// Event is the state of the mapping after a change.
type Event struct {
	// Mapping is the present mapping; its External is not valid when there is none.
	Mapping Mapping
	// Err is nil when the mapping can be advertised. Otherwise it wraps or is a *[NoAnswerError],
	// *[RefusedError] or *[DoubleNATError] (then Mapping is set but leads nowhere), or an error of the operating
	// system.
	Err error
}

// Usable reports whether the mapping can be advertised to others.
func (e Event) Usable() bool { return e.Err == nil && e.Mapping.External.IsValid() }

// Client keeps one mapping. Its methods may be called from any goroutine; Run may be called again after it
// returned.
type Client struct {
	cfg       Config
	log       *slog.Logger
	protocols []protocol
	listen    func(ctx context.Context, found chan<- announcement) error

	refresh chan struct{}
	current atomic.Pointer[Event]
	dropped atomic.Uint64

	// Run's goroutine owns these: held is the protocol asked last, granted whether its mapping stands.
	held    protocol
	granted bool
}

// New checks cfg and makes a Client; it sends nothing.
func New(cfg Config) (*Client, error) {
	return newClient(cfg, places{router: routerPort, announcements: announcementPort, ssdp: ssdpPort})
}

// places are the ports at which the router is spoken to, and the group for searches.
type places struct {
	router, announcements, ssdp uint16
	withoutMulticast            bool
}

func newClient(cfg Config, at places) (*Client, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, log: cfg.Logger, refresh: make(chan struct{}, 1)}
	router := netip.AddrPortFrom(cfg.Gateway, at.router)
	dial := func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{
			LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(cfg.LocalAddr, 0)), Control: cfg.Control,
		}
		return d.DialContext(ctx, "udp4", router.String())
	}
	searcher := &searcher{
		gateway: cfg.Gateway, local: cfg.LocalAddr, control: cfg.Control,
		targets: []netip.AddrPort{netip.AddrPortFrom(cfg.Gateway, at.ssdp)},
	}
	if !at.withoutMulticast {
		group := netip.AddrFrom4([4]byte{239, 255, 255, 250})
		searcher.targets = append(searcher.targets, netip.AddrPortFrom(group, at.ssdp))
	}
	c.protocols = []protocol{
		&pcpClient{dial: dial, local: cfg.LocalAddr, internalPort: cfg.InternalPort, nonce: cfg.Nonce},
		&natpmpClient{dial: dial, internalPort: cfg.InternalPort},
		&upnpClient{
			web: newWebClient(cfg.LocalAddr, cfg.Control), search: searcher.search,
			local: cfg.LocalAddr, internalPort: cfg.InternalPort, description: cfg.Description,
		},
	}
	listener := &announcementListener{router: cfg.Gateway, port: at.announcements, dropped: &c.dropped}
	c.listen = listener.listen
	return c, nil
}

// complete checks the configuration and fills in what was left open.
func (cfg *Config) complete() error {
	switch {
	case !cfg.Gateway.Is4() || cfg.Gateway.IsUnspecified() || cfg.Gateway.IsMulticast():
		return fmt.Errorf("port mapping: router %s is not an IPv4 unicast address", cfg.Gateway)
	case !cfg.LocalAddr.Is4() || cfg.LocalAddr.IsUnspecified() || cfg.LocalAddr.IsMulticast():
		return fmt.Errorf("port mapping: local address %s is not an IPv4 unicast address", cfg.LocalAddr)
	case cfg.InternalPort == 0:
		return errors.New("port mapping: internal port is 0")
	case cfg.Lifetime == 0:
		cfg.Lifetime = DefaultLifetime
	case cfg.Lifetime < MinLifetime || cfg.Lifetime > MaxLifetime:
		return fmt.Errorf("port mapping: lifetime %s is not between %s and %s", cfg.Lifetime, MinLifetime,
			MaxLifetime)
	}
	if cfg.Nonce == [12]byte{} {
		_, _ = rand.Read(cfg.Nonce[:]) // never fails, crypto/rand ends the program instead
	}
	if cfg.Description == "" {
		cfg.Description = "aetherd"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Current gives the state after the last answer, with the present expiry; the zero Event before the first.
func (c *Client) Current() Event {
	if e := c.current.Load(); e != nil {
		return *e
	}
	return Event{}
}

// Refresh makes Run ask the router again at once, for a caller that saw the network change or the host wake
// up. It never blocks; several calls before Run reacts count as one.
func (c *Client) Refresh() {
	select {
	case c.refresh <- struct{}{}:
	default:
	}
}

// report stores the state and tells of it when more than the expiry changed.
func (c *Client) report(e Event) {
	previous := c.Current()
	c.current.Store(&e)
	if previous.Mapping.External == e.Mapping.External && previous.Mapping.Protocol == e.Mapping.Protocol &&
		errorText(previous.Err) == errorText(e.Err) {
		return
	}
	switch {
	case e.Err != nil:
		c.log.Warn("no usable port mapping", "error", e.Err)
	case !e.Mapping.External.IsValid():
		c.log.Debug("port mapping given up")
	default:
		c.log.Info("port mapping", "external", e.Mapping.External, "protocol", string(e.Mapping.Protocol))
	}
	if c.cfg.OnEvent != nil {
		c.cfg.OnEvent(e)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aethertunnel/aethertunnel/control"
	"github.com/aethertunnel/aethertunnel/control/config"
	"github.com/aethertunnel/aethertunnel/control/portmap"
	"github.com/aethertunnel/aethertunnel/crypto/token"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
	"github.com/aethertunnel/aethertunnel/platform/netmon"
	"github.com/aethertunnel/aethertunnel/platform/route"
)

// reachability knows under which addresses others can reach this gateway.
type reachability struct {
	cfg    config.Gateway
	device string // our own NIC, whose addresses are of no use for this

	first     chan struct{} // closed when the router has answered, or need not be asked
	firstOnce sync.Once

	mu     sync.Mutex     // guards the rest
	mapped netip.AddrPort // what the router forwards to us; not valid when nothing
	reason error          // why it does not
}

// routerLimit is how long the first invite waits for the router's answer.
const routerLimit = 4 * time.Second

func newReachability(cfg config.Gateway, device string) *reachability {
	return &reachability{cfg: cfg, device: device, first: make(chan struct{})}
}

// answered says that there is nothing more to wait for.
func (r *reachability) answered() { r.firstOnce.Do(func() { close(r.first) }) }

// settle waits until the router has had the time to answer.
func (r *reachability) settle(ctx context.Context) {
	select {
	case <-r.first:
	case <-time.After(routerLimit):
	case <-ctx.Done():
	}
}

// addresses lists HOST:PORT for invites: what the operator says, or else every usable address of the host that we listen
// on and the one that the router forwards.
func (r *reachability) addresses() ([]string, error) {
	if len(r.cfg.Advertise) > 0 {
		out := make([]string, len(r.cfg.Advertise))
		for i, a := range r.cfg.Advertise {
			out[i] = a.String()
		}
		return out, nil
	}
	usable, err := route.UsableAddresses(r.device)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	r.mu.Lock()
	mapped := r.mapped
	r.mu.Unlock()
	var out []string
	if mapped.IsValid() {
		out = append(out, mapped.String())
	}
	for _, a := range usable {
		if a.Deprecated || a.Temporary {
			continue
		}
		for _, l := range r.cfg.Listen {
			if !l.Addr.IsValid() || l.Addr == a.Addr || l.Addr.IsUnspecified() && l.Addr.Is4() == a.Addr.Is4() {
				if text := netip.AddrPortFrom(a.Addr, l.Port).String(); !slices.Contains(out, text) {
					out = append(out, text)
				}
			}
		}
	}
	return out[:min(len(out), token.MaxAddresses)], nil
}

// notice says what stands in the way of members from outside, or "" when nothing does.
func (r *reachability) notice(addresses []string) string {
	if len(r.cfg.Advertise) > 0 {
		return ""
	}
	if len(addresses) == 0 {
		return "no other machine can reach this gateway, so it makes no invites: connect this machine to a network, " +
			"listen on an address of it with --listen, or name one with --advertise HOST:PORT"
	}
	for _, text := range addresses {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			continue
		}
		if kind, ok := route.KindOf(a.Addr()); ok && kind == route.Global {
			return ""
		}
	}
	port := r.cfg.Listen[0].Port
	line := fmt.Sprintf("only machines in the same local network can reach this gateway: "+
		"forward UDP port %d to this machine in the router, or name the public address with --advertise HOST:%d", port, port)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reason != nil {
		line += fmt.Sprintf(" (%v)", r.reason)
	}
	return line
}

// keepReachable keeps the router's port mapping and the list of addresses up to date until ctx ends, and lets the gateway
// look at the host again when its network has changed.
func (g *gatewayNode) keepReachable(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	changed := make(chan struct{}, 1)
	signal := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	mapping := portMapper{g: g, changed: signal}
	defer mapping.stop()
	mapping.follow(ctx)
	monitor := netmon.New(netmon.Config{Ignore: []string{g.host.device}})
	monitorDone := make(chan error, 1)
	parts.Go(func() { monitorDone <- guard("network monitor", func() error { return monitor.Run(ctx) }) })
	for {
		select {
		case <-monitor.Changes():
			mapping.follow(ctx)
			g.gateway.Refresh()
		case <-changed:
		case err := <-monitorDone:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch the network: %w", err)
		}
		addresses, err := g.reach.addresses()
		if err != nil {
			g.opts.Log.Warn("addresses not updated", "error", err)
			continue
		}
		if !slices.Equal(addresses, g.gateway.Addresses()) {
			g.gateway.SetAddresses(addresses)
			g.observe(control.Event{Kind: control.EventAddress, Text: fmt.Sprint(addresses)})
		}
		g.reach.settled()
	}
}

// portMapper asks the host's present router for our port, and another one when the host moves.
type portMapper struct {
	g       *gatewayNode
	changed func()

	router, local netip.Addr
	client        atomic.Pointer[portmap.Client] // the one that runs, for a moment nil
	cancel        context.CancelFunc
	done          chan struct{}
}

// follow starts asking the present router, unless it is being asked already.
func (m *portMapper) follow(ctx context.Context) {
	cfg := m.g.opts.Config.Gateway
	if cfg.PortMapping != config.PortMappingAuto || len(cfg.Advertise) > 0 {
		m.g.reach.answered()
		return
	}
	router, local, ok, err := route.DefaultRouter()
	if err != nil {
		m.g.opts.Log.Warn("port mapping", "error", err)
		return // what is known stays in use until the next change; the first invite does not wait for ever
	}
	if kind, usable := route.KindOf(local); !ok || !usable || kind == route.Global {
		router, local = netip.Addr{}, netip.Addr{} // nobody to ask, or our own address is public
		m.g.reach.answered()
	}
	if router == m.router && local == m.local {
		if client := m.client.Load(); client != nil {
			client.Refresh() // its address outside may have changed
		}
		return
	}
	m.stop()
	m.router, m.local = router, local
	if router.IsValid() {
		ctx, m.cancel = context.WithCancel(ctx)
		m.done = make(chan struct{})
		go m.run(ctx, m.done)
	}
}

// stop ends the mapping and waits until the router has been told.
func (m *portMapper) stop() {
	if m.cancel != nil {
		m.cancel()
		<-m.done
		m.cancel = nil
	}
}

// run keeps the mapping until ctx ends.
func (m *portMapper) run(ctx context.Context, done chan<- struct{}) {
	defer close(done)
	g := m.g
	err := guard("port mapping", func() error {
		nonce, err := g.state.mappingNonce()
		if err != nil {
			return err
		}
		client, err := portmap.New(portmap.Config{
			Nonce: nonce, Gateway: m.router, LocalAddr: m.local, InternalPort: g.opts.Config.Gateway.Listen[0].Port,
			Logger:  g.opts.Log,
			Control: func(_, _ string, raw syscall.RawConn) error { return udp.SetMark(raw, g.host.selectors.Mark) },
			OnEvent: func(e portmap.Event) {
				g.reach.set(e)
				m.changed()
			},
		})
		if err != nil {
			return err
		}
		m.client.Store(client)
		defer m.client.Store(nil)
		return client.Run(ctx)
	})
	if err != nil && ctx.Err() == nil {
		g.opts.Log.Warn("port mapping", "error", err)
	}
}

// set keeps what the router has said.
func (r *reachability) set(e portmap.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mapped, r.reason = netip.AddrPort{}, e.Err
	if e.Usable() {
		r.mapped = e.Mapping.External
	}
}

// settled ends the wait for the router once it has said something and the addresses are up to date.
func (r *reachability) settled() {
	r.mu.Lock()
	heard := r.mapped.IsValid() || r.reason != nil
	r.mu.Unlock()
	if heard {
		r.answered()
	}
}

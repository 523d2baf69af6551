package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

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

	mu     sync.Mutex
	mapped netip.AddrPort // what the router forwards to us; not valid when nothing
	reason error          // why it does not
}

func newReachability(cfg config.Gateway, device string) *reachability {
	return &reachability{cfg: cfg, device: device}
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

// keepReachable keeps the router's port mapping and the list of addresses up to date until ctx ends.
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
	if g.opts.Config.Gateway.PortMapping == config.PortMappingAuto && len(g.opts.Config.Gateway.Advertise) == 0 {
		parts.Go(func() { g.mapPort(ctx, signal) })
	}
	monitor := netmon.New(netmon.Config{Ignore: []string{g.host.device}})
	monitorDone := make(chan error, 1)
	parts.Go(func() { monitorDone <- monitor.Run(ctx) })
	for {
		select {
		case <-monitor.Changes():
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
	}
}

// mapPort asks the router for our port until ctx ends.
func (g *gatewayNode) mapPort(ctx context.Context, changed func()) {
	router, local, ok, err := route.DefaultRouter()
	if err != nil || !ok {
		g.opts.Log.Debug("no router to ask for a port", "error", err)
		return
	}
	if kind, usable := route.KindOf(local); !usable || kind == route.Global {
		return // our own address is public: there is nothing to forward
	}
	nonce, err := g.state.mappingNonce()
	if err != nil {
		g.opts.Log.Warn("port mapping", "error", err)
		return
	}
	client, err := portmap.New(portmap.Config{
		Nonce: nonce, Gateway: router, LocalAddr: local, InternalPort: g.opts.Config.Gateway.Listen[0].Port, Logger: g.opts.Log,
		Control: func(_, _ string, raw syscall.RawConn) error { return udp.SetMark(raw, g.host.selectors.Mark) },
		OnEvent: func(e portmap.Event) {
			g.reach.mu.Lock()
			g.reach.mapped, g.reach.reason = netip.AddrPort{}, e.Err
			if e.Usable() {
				g.reach.mapped = e.Mapping.External
			}
			g.reach.mu.Unlock()
			changed()
		},
	})
	if err != nil {
		g.opts.Log.Warn("port mapping", "error", err)
		return
	}
	if err := client.Run(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
		g.opts.Log.Warn("port mapping ended", "error", err)
	}
}

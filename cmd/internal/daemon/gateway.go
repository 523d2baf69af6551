package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/quic-go/quic-go/http3"

	"github.com/aethertunnel/aethertunnel/control"
	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/api"
	"github.com/aethertunnel/aethertunnel/platform/route"
)

// gatewayNode is a daemon in the gateway's role.
type gatewayNode struct {
	*node
	authority    *admit.Authority
	gateway      *control.Gateway
	certificates *certificates
	reach        *reachability
	created      bool
}

func (n *node) runGateway(ctx context.Context) error {
	g := &gatewayNode{node: n}
	// A port or a device name that is taken must not leave a network behind: the first invite is shown only by the start
	// that makes it.
	defer g.closeSockets()
	if err := g.openSockets(ctx); err != nil {
		return err
	}
	if err := g.refuseTaken(); err != nil {
		return err
	}
	if err := n.openNIC(); err != nil {
		return err
	}
	defer n.closeNIC()
	n.openLanes()
	if err := g.openAuthority(); err != nil {
		return err
	}
	g.reach = newReachability(n.opts.Config.Gateway, n.host.device)
	if err := g.openGateway(); err != nil {
		return err
	}
	server, err := g.gateway.Server()
	if err != nil {
		return err
	}
	parts := []func(context.Context) error{
		g.gateway.Run,
		g.keepReachable,
		g.announce,
	}
	for _, s := range g.sockets {
		parts = append(parts, func(ctx context.Context) error { return g.serveSocket(ctx, s, server) })
	}
	return n.serve(ctx, g, parts...)
}

func (g *gatewayNode) openGateway() error {
	addresses, err := g.reach.addresses()
	if err != nil {
		return err
	}
	g.gateway, err = control.NewGateway(control.GatewayConfig{
		Authority: g.authority, Dataplane: g.engine, Host: g.host, Grant: g.opts.Config.Routes.Advertise,
		Addresses: addresses, Observe: g.observe, Now: now, Lanes: g.lanes,
	})
	if err != nil {
		return err
	}
	g.certificates = &certificates{
		authority: g.authority, key: g.state.key, addresses: g.gateway.Addresses, now: now,
		failed: func(err error) {
			g.observe(control.Event{Kind: control.EventNotice, Text: "the gateway's certificate stays as it is", Err: err})
		},
	}
	// One that cannot be made or kept must be known before anybody is told that we listen.
	_, err = g.certificates.get(nil)
	return err
}

// openAuthority opens the network of this state, or makes one.
func (g *gatewayNode) openAuthority() error {
	cfg := admit.Config{Random: rand.Reader, Now: now}
	asked := g.opts.Config.Gateway.Network
	if g.state.network == nil {
		avoid, err := route.KnownPrefixes()
		if err != nil {
			return fmt.Errorf("look for prefixes in use: %w", err)
		}
		g.created = true
		g.authority, err = admit.CreateNetwork(g.state.store, cfg, admit.NetworkParams{
			Name: g.name(), Gateway: g.state.key.Public(), GatewayName: g.name(), Prefixes: asked, Avoid: avoid,
		})
		if err != nil {
			return fmt.Errorf("make the network: %w", err)
		}
		return nil
	}
	var err error
	if g.authority, err = admit.Open(g.state.store, cfg); err != nil {
		return fmt.Errorf("open the network: %w", err)
	}
	have := g.authority.Network().Prefixes
	for _, p := range asked {
		if !slices.Contains(have, p) {
			return fmt.Errorf("--network %v: the network of state %s has %v already, and its members know it: "+
				"leave --network out, or use --state DIR with a fresh directory", p, g.state.dir, have)
		}
	}
	return nil
}

// refuseTaken refuses the prefixes of this network, or of the one to be made, that another interface has.
func (g *gatewayNode) refuseTaken() error {
	if g.state.network != nil {
		return refuseConnected(g.state.network.Prefixes)
	}
	return refuseConnected(g.opts.Config.Gateway.Network)
}

// refuseConnected refuses prefixes that another interface has, before anything on the host changes.
func refuseConnected(prefixes []netip.Prefix) error {
	conflicts, err := route.Connected(prefixes, "")
	if err != nil {
		return fmt.Errorf("look for connected networks: %w", err)
	}
	if len(conflicts) > 0 {
		return conflictError(conflicts[0])
	}
	return nil
}

func (g *gatewayNode) openSockets(ctx context.Context) error {
	for _, l := range g.opts.Config.Gateway.Listen {
		if _, err := g.listen(ctx, netip.AddrPortFrom(l.Addr, l.Port)); err != nil {
			return err
		}
	}
	return nil
}

func (g *gatewayNode) closeSockets() {
	for _, s := range g.sockets {
		if err := s.close(); err != nil {
			g.opts.Log.Warn("close socket", "error", err)
		}
	}
}

// serveSocket takes sessions on one socket until ctx ends.
func (g *gatewayNode) serveSocket(ctx context.Context, s *socket, server *http3.Server) error {
	certificate, err := g.certificates.get(nil)
	if err != nil {
		return err
	}
	tlsConfig := control.GatewayTLS(*certificate, policy(g.opts.Config.TLS))
	tlsConfig.Certificates, tlsConfig.GetCertificate = nil, g.certificates.get
	listener, err := s.transport.ListenEarly(tlsConfig, g.drops.trace(s.sizes.QUICConfig()))
	if err != nil {
		return fmt.Errorf("listen for QUIC: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() }) // makes ServeListener return
	defer stop()
	err = server.ServeListener(listener)
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %v: %w", s.udp.LocalAddr(), err)
}

// announce tells the user that the gateway is up, and how to join a network that has just been made.
func (g *gatewayNode) announce(ctx context.Context) error {
	select {
	case <-g.gateway.Ready():
	case <-ctx.Done():
		return nil
	}
	g.reach.settle(ctx)
	addresses := g.gateway.Addresses()
	if notice := g.reach.notice(addresses); notice != "" {
		g.observe(control.Event{Kind: control.EventNotice, Text: notice})
	}
	up := Up{Status: g.Status(), Created: g.created}
	if g.created && len(addresses) > 0 {
		invite, err := g.Invite(ctx, api.InviteRequest{})
		if err != nil {
			return fmt.Errorf("first invite: %w", err)
		}
		up.Invite = &invite
	}
	g.opts.up(up)
	g.opts.ready()
	return nil
}

package control

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/dataplane"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// activeRoute is a subnet and the node that it is behind.
type activeRoute struct {
	node   identity.ID
	prefix netip.Prefix
}

// reconcile computes everything anew from the records and the live sessions, and tells dataplane, host and members what
// differs from before.
func (g *Gateway) reconcile(ctx context.Context) error {
	active, err := g.activeRoutes()
	if err != nil {
		return err
	}
	snapshot, err := g.snapshot(active)
	if err != nil {
		return err
	}
	if err := g.cfg.Dataplane.Apply(snapshot); err != nil {
		return err
	}
	hostErr := g.applyHost(ctx, active) // members are served even if our own host is in trouble
	for _, l := range g.snapshotLinks() {
		if !lists(snapshot, l.node.ID) {
			// Revoked after its session was authorized and before Revoke could see the session.
			g.cfg.Lanes.drop(l.node.ID, lane.ReasonRevoked)
			l.close(CodeRevoked, "revoked")
			continue
		}
		if err := g.tell(l, active); err != nil {
			// The member does not read what we say, or the session has just ended: it is better made anew.
			l.close(masque.CodeRestart, "cannot be told what has changed")
			if !errors.Is(err, masque.ErrClosed) {
				g.observe(Event{Kind: EventNotice, Node: l.node.Name, Text: "cannot be told what has changed", Err: err})
			}
		}
	}
	return hostErr
}

// lists reports whether a snapshot has the node as a peer.
func lists(s dataplane.Snapshot, id identity.ID) bool {
	return slices.ContainsFunc(s.Peers, func(p dataplane.Peer) bool { return p.ID == dataplane.PeerID(id) })
}

// activeRoutes lists the subnets that packets follow now. Where two nodes stand for the same one, the record that was
// made first counts.
func (g *Gateway) activeRoutes() ([]activeRoute, error) {
	routes, err := g.Routes()
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	slices.SortStableFunc(routes, func(a, b RouteStatus) int { return a.Offered.Compare(b.Offered) })
	var out []activeRoute
	for _, r := range routes {
		taken := slices.ContainsFunc(out, func(o activeRoute) bool { return o.prefix == r.Prefix })
		if r.Active && !taken {
			out = append(out, activeRoute{r.Node, r.Prefix})
		}
	}
	return out, nil
}

// snapshot is what the dataplane needs: every admitted node with its addresses, connected or not.
func (g *Gateway) snapshot(active []activeRoute) (dataplane.Snapshot, error) {
	nodes, err := g.cfg.Authority.Nodes()
	if err != nil {
		return dataplane.Snapshot{}, fmt.Errorf("read nodes: %w", err)
	}
	s := dataplane.Snapshot{
		NICAddresses: g.self.Addresses,
		NICPrefixes:  slices.Concat(hostPrefixes(g.self.Addresses), prefixesOf(active, g.self.ID)),
	}
	for _, n := range nodes {
		if n.ID == g.self.ID || n.IsRevoked() {
			continue
		}
		s.Peers = append(s.Peers, dataplane.Peer{
			ID:       dataplane.PeerID(n.ID),
			Prefixes: slices.Concat(hostPrefixes(n.Addresses), prefixesOf(active, n.ID)),
		})
	}
	return s, nil
}

func prefixesOf(active []activeRoute, id identity.ID) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range active {
		if r.node == id {
			out = append(out, r.prefix)
		}
	}
	return out
}

// applyHost sets up our own host: the network goes into the tunnel, and so do the subnets behind members.
func (g *Gateway) applyHost(ctx context.Context, active []activeRoute) error {
	plan := HostPlan{
		Addresses: hostPrefixes(g.self.Addresses),
		Routes:    slices.Clone(g.network.Prefixes),
		Granted:   prefixesOf(active, g.self.ID),
		Tunnel:    g.network.Prefixes,
	}
	for _, r := range active {
		if r.node != g.self.ID {
			plan.Routes = append(plan.Routes, r.prefix)
		}
	}
	report, err := g.cfg.Host.Apply(ctx, plan)
	if err != nil {
		return err
	}
	g.mu.Lock()
	known := g.notices
	g.routes, g.granted, g.notices = report.Routes, plan.Granted, report.Notices
	g.mu.Unlock()
	for _, n := range report.Notices {
		if !slices.Contains(known, n) {
			g.observe(Event{Kind: EventNotice, Text: n})
		}
	}
	return nil
}

// tell sends a member what it does not know yet: the map, addresses and routes, each as the whole list. The map comes
// first, because a member begins as soon as it has addresses and routes.
func (g *Gateway) tell(l *gatewayLink, active []activeRoute) error {
	routes := slices.Clone(g.network.Prefixes)
	for _, r := range active {
		if r.node != l.node.ID {
			routes = append(routes, r.prefix)
		}
	}
	if err := g.tellMap(l, routes, prefixesOf(active, l.node.ID)); err != nil {
		return err
	}
	if tooSmall := g.tooSmallForIPv6(l); !l.told || tooSmall != l.withoutV6 {
		l.withoutV6 = tooSmall
		if err := g.assign(l); err != nil {
			return err
		}
	}
	if !l.told || !slices.Equal(routes, l.routes) {
		if err := l.session.AdvertiseRoutes(routes); err != nil {
			return err
		}
		l.routes = routes
	}
	if !l.told {
		l.told = true
		g.startCarrying(l)
		g.retireOlder(l)
	}
	return nil
}

// tellMap sends what RFC 9484 has no words for, if it differs from what was sent last.
func (g *Gateway) tellMap(l *gatewayLink, routes, granted []netip.Prefix) error {
	g.renew(l)
	info, err := mapMessage{
		Network: g.network.Name, Node: l.node.Name, Gateway: g.self.Name, Addresses: g.Addresses(),
		Prefixes: g.network.Prefixes, Routes: routes, Granted: granted, Chain: l.chain,
	}.encode()
	if err != nil {
		return err
	}
	if bytes.Equal(info, l.info) {
		return nil
	}
	l.info = info
	return l.session.SendPrivate(masque.CapsuleMap, info)
}

// renewRetry is how long after a failure to renew a certificate it is tried again.
const renewRetry = time.Hour

// renew puts a new certificate chain into the map of a member whose own nears its end. What counts is the certificate that
// the member has shown, not the newest on record: that may have been lost on its way.
func (g *Gateway) renew(l *gatewayLink) {
	now := g.cfg.Now()
	if l.byToken || now.Before(l.renewAt) {
		return
	}
	l.renewAt = now.Add(renewRetry)
	chain, err := g.cfg.Authority.Renew(l.node.ID)
	if err != nil {
		g.observe(Event{Kind: EventNotice, Node: l.node.Name, Text: "certificate not renewed", Err: err})
		return
	}
	l.chain = chain
	if leaf, err := x509.ParseCertificate(chain[0]); err == nil {
		l.renewAt = leaf.NotAfter.Add(-admit.RenewBefore)
	}
}

// assign sends the addresses of a member as the answer to what it has asked for.
func (g *Gateway) assign(l *gatewayLink) error {
	addresses := hostPrefixes(l.node.Addresses)
	if l.withoutV6 {
		addresses = slices.DeleteFunc(addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	}
	return l.session.AssignAddresses(masque.Assign(addresses, l.request))
}

// tooSmallForIPv6 reports whether a stock client's path cannot carry the smallest packet that IPv6 relies on (RFC 9484
// section 10.1). The next look may find that path MTU discovery has raised the limit.
func (g *Gateway) tooSmallForIPv6(l *gatewayLink) bool {
	if !l.byToken || l.session.MaxPacketSize() >= masque.MinIPv6PacketSize {
		return false
	}
	if !l.withoutV6 {
		g.observe(Event{
			Kind: EventNotice, Node: l.node.Name,
			Text: fmt.Sprintf("no IPv6: the path carries packets of %d bytes, IPv6 needs %d", l.session.MaxPacketSize(),
				masque.MinIPv6PacketSize),
		})
	}
	return true
}

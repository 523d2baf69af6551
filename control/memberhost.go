package control

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/token"
	"github.com/aethertunnel/aethertunnel/dataplane"
)

// said takes in what the gateway says on a link.
func (m *Member) said(ctx context.Context, l *memberLink, e masque.Event) error {
	if l != m.current && l != m.pending {
		return nil // a link that was given up
	}
	switch e := e.(type) {
	case masque.AddressAssignment:
		l.assigned = e.Prefixes()
	case masque.RouteAdvertisement:
		routes, err := masque.RangesToPrefixes(e.Ranges, maxRoutePrefixes)
		if err != nil {
			m.observe(Event{Kind: EventNotice, Text: "routes of the gateway refused", Err: err})
			return nil
		}
		l.routes, l.hasRoute = routes, true
	case masque.PrivateCapsule:
		if e.Type != masque.CapsuleMap {
			return nil
		}
		info, err := decodeMapMessage(e.Payload)
		if err != nil {
			m.observe(Event{Kind: EventNotice, Text: "map of the gateway refused", Err: err})
			return nil
		}
		l.info = info
		m.learn(info)
	default:
		return nil
	}
	// No ROUTE_ADVERTISEMENT yet means no packets yet.
	if len(l.assigned) == 0 || !l.hasRoute {
		return nil
	}
	return m.adopt(ctx, l)
}

// learn keeps what the gateway says about itself and us, so that the next start can use it.
func (m *Member) learn(info mapMessage) {
	updated := m.membership
	if len(info.Addresses) > 0 {
		updated.GatewayAddresses = newestFirst(info.Addresses, updated.GatewayAddresses)
	}
	if info.Node != "" {
		updated.Name = info.Node
	}
	if len(info.Prefixes) > 0 {
		updated.Prefixes = info.Prefixes
	}
	if len(info.Chain) > 0 {
		if err := m.checkChain(info.Chain); err != nil {
			m.observe(Event{Kind: EventNotice, Text: "renewed certificate refused", Err: err})
		} else {
			updated.Chain = info.Chain
		}
	}
	m.remember(updated)
	m.mu.Lock()
	m.status.GatewayName = info.Gateway
	m.mu.Unlock()
}

// checkChain makes sure that a renewed certificate is ours and usable before it replaces the old one.
func (m *Member) checkChain(chain [][]byte) error {
	certificate, err := admit.TLSCertificate(chain, m.cfg.Key.Signer())
	if err != nil {
		return err
	}
	ca, err := x509.ParseCertificate(m.membership.CACertificate)
	if err != nil {
		return fmt.Errorf("parse the network's CA certificate: %w", err)
	}
	if err := certificate.Leaf.CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("%w: %w", admit.ErrWrongNetwork, err)
	}
	// One made by a gateway whose clock is off must not replace one that is good.
	now, leaf := m.cfg.Now(), certificate.Leaf
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return &admit.ValidityError{Now: now, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	}
	return nil
}

// newestFirst lists the addresses the gateway names now before older ones, without doubles and within bounds.
func newestFirst(now, before []string) []string {
	var out []string
	for _, a := range slices.Concat(now, before) {
		if len(out) < token.MaxAddresses && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// remember keeps a membership in memory and on disk, if it differs.
func (m *Member) remember(updated store.Membership) {
	before := m.membership
	if slices.Equal(updated.GatewayAddresses, before.GatewayAddresses) && updated.Name == before.Name &&
		slices.Equal(updated.Prefixes, before.Prefixes) && slices.Equal(updated.Addresses, before.Addresses) &&
		slices.EqualFunc(updated.Chain, before.Chain, slices.Equal) {
		return
	}
	m.mu.Lock()
	m.membership = updated
	m.mu.Unlock()
	if err := m.cfg.Save(updated); err != nil {
		m.observe(Event{Kind: EventNotice, Text: "membership not saved", Err: err})
	}
}

// adopt makes a link that has said everything the current one, and the host agree with what it said.
func (m *Member) adopt(ctx context.Context, l *memberLink) error {
	if err := m.apply(ctx, l); err != nil {
		return err
	}
	if m.current == l {
		return nil
	}
	old := m.current
	m.current, m.pending = l, nil
	l.adopted = time.Now()
	m.retry.Stop()
	m.publish()
	m.workers.Go(func() { m.carry(l) })
	if old != nil {
		m.cfg.Lanes.ended(old.lanes, false) // its lane goes on with the new session
		old.close(CodeReplaced, "replaced by a newer session")
	}
	if err := m.cfg.Lanes.offer(l.lanes); err != nil {
		m.observe(Event{Kind: EventNotice, Text: "no lane", Err: err})
	}
	if err := m.offer(l); err != nil {
		m.observe(Event{Kind: EventNotice, Text: "routes not offered", Err: err})
	}
	m.observe(Event{
		Kind: EventConnected, Node: l.info.Gateway, Remote: l.remote, Prefixes: l.assigned, Group: l.group,
		RTT: l.conn.ConnectionStats().SmoothedRTT,
	})
	return nil
}

// offer tells the gateway which LANs are behind us: in the words of RFC 9484, and exactly as the operator wrote them, since
// neighbouring prefixes become one range there. Nothing to offer is said too: it withdraws what was offered before.
func (m *Member) offer(l *memberLink) error {
	exact, err := mapMessage{Offer: m.cfg.Offer}.encode()
	if err != nil {
		return err
	}
	return errors.Join(l.session.SendPrivate(masque.CapsuleMap, exact), l.session.AdvertiseRoutes(m.cfg.Offer))
}

// carry lends the link to the dataplane until one of them ends.
func (m *Member) carry(l *memberLink) {
	err := recovered(func() error {
		return m.cfg.Dataplane.Attach(l.ctx, dataplane.PeerID(m.cfg.Membership.Gateway), carrier{l.session})
	})
	l.cancel(fmt.Errorf("carry packets: %w", err))
}

// apply gives host and dataplane what the gateway has said on l.
func (m *Member) apply(ctx context.Context, l *memberLink) error {
	own := unique(l.assigned)
	granted := intersect(m.cfg.Offer, l.info.Granted)
	routes := l.routes
	if len(l.info.Routes) > 0 {
		routes = l.info.Routes // the same, as the operators wrote them
	}
	routes = without(unique(routes), slices.Concat(own, m.cfg.Offer))
	var addresses []netip.Addr
	for _, p := range own {
		addresses = append(addresses, p.Addr())
	}
	plan := HostPlan{Addresses: own, Routes: routes, Granted: granted, Tunnel: m.membership.Prefixes}
	if err := m.applyHost(ctx, plan); err != nil {
		return err
	}
	if err := m.cfg.Dataplane.Apply(dataplane.Snapshot{
		NICAddresses: addresses,
		NICPrefixes:  slices.Concat(own, granted),
		NICSources:   slices.Concat(own, granted),
		Peers:        []dataplane.Peer{{ID: dataplane.PeerID(m.cfg.Membership.Gateway), Prefixes: routes}},
	}); err != nil {
		return err
	}
	updated := m.membership
	updated.Addresses = addresses
	m.remember(updated)
	return nil
}

// applyHost makes the host agree with a plan. Only the first time is a refusal final: later it is a notice, and tried
// again with the next change or refresh.
func (m *Member) applyHost(ctx context.Context, plan HostPlan) error {
	m.plan = plan
	report, err := m.cfg.Host.Apply(ctx, plan)
	if err != nil && !m.applied {
		return err
	}
	m.applied = m.applied || len(plan.Addresses) > 0
	notices := report.Notices
	if err == nil {
		m.publishRoutes(report.Routes, plan.Granted)
	} else {
		notices = append(notices, "the host could not be set up as it should be: "+err.Error())
	}
	m.mu.Lock()
	known := m.status.Notices
	m.status.Notices = notices
	m.mu.Unlock()
	for _, n := range notices {
		if !slices.Contains(known, n) {
			m.observe(Event{Kind: EventNotice, Text: n})
		}
	}
	return nil
}

// publishRoutes makes known what the host routes now.
func (m *Member) publishRoutes(routes, granted []netip.Prefix) {
	m.mu.Lock()
	routesChanged := !slices.Equal(m.status.Routes, routes)
	grantedChanged := !slices.Equal(m.status.Granted, granted)
	m.status.Routes, m.status.Granted = routes, granted
	m.mu.Unlock()
	if routesChanged {
		m.observe(Event{Kind: EventRoutes, Text: "through the tunnel", Prefixes: routes})
	}
	if grantedChanged && len(granted) > 0 {
		m.observe(Event{Kind: EventRoutes, Text: "our LAN is open to the network", Prefixes: granted})
	}
}

// unique leaves out prefixes that have come before: the dataplane knows one place for each.
func unique(list []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// intersect keeps what is in both lists.
func intersect(a, b []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(a), func(p netip.Prefix) bool { return !slices.Contains(b, p) })
}

// without removes the prefixes of b from a.
func without(a, b []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(a), func(p netip.Prefix) bool { return slices.Contains(b, p) })
}

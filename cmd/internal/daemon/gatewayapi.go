package daemon

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/aethertunnel/aethertunnel/control"
	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/api"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/crypto/token"
	"github.com/aethertunnel/aethertunnel/dataplane"
)

var _ api.Daemon = (*gatewayNode)(nil)

// Defaults of an invite.
const (
	defaultUses = 1
	defaultTTL  = 24 * time.Hour
)

// Down implements [api.Daemon].
func (n *node) Down() { n.stop(errDown) }

// baseStatus is what both roles have.
func (n *node) baseStatus() api.Status {
	s := n.host.selectors
	drops := n.engine.Stats().Drops
	n.drops.addTo(drops)
	var sockets []api.Socket
	for _, s := range n.sockets {
		sockets = append(sockets, api.Socket{Address: s.udp.LocalAddr().String(), Offloads: s.udp.Offloads()})
	}
	return api.Status{
		Sockets: sockets,
		Version: n.opts.Version, PID: os.Getpid(), Started: n.started, Name: n.name(), NodeID: n.state.key.ID().String(),
		Device: api.Device{Name: n.nic.Name(), MTU: n.host.mtu, Offloads: n.nic.Offloads()},
		Host:   api.HostSelectors{Table: s.Table, Mark: s.Mark, Priority: s.Priority},
		Drops:  drops,
	}
}

// peer makes the API's view of a session.
func (n *node) peer(name, id string, l *control.LinkStatus, s dataplane.PeerStats) api.Peer {
	p := api.Peer{
		Name: name, NodeID: id,
		ReceivedPackets: s.ReceivedPackets, ReceivedBytes: s.ReceivedBytes,
		SentPackets: s.SentPackets, SentBytes: s.SentBytes,
	}
	if l != nil {
		p.Connected, p.Since, p.Remote, p.KeyExchange = true, &l.Since, l.Remote.String(), l.Group
		p.Path, p.RTTMicros, p.MaxPacketBytes = "session", l.RTT.Microseconds(), l.MaxPacketBytes
		p.Ignored = l.Ignored
		p.InFragments = slices.ContainsFunc(n.sockets, func(s *socket) bool { return s.udp.InFragments(l.Remote) })
		if lane := s.Lane; lane != nil {
			// The lane finds a peer that has moved at once, the session with its next packet.
			p.Path, p.Remote = "lane", lane.Remote.String()
			p.MaxPacketBytes, p.Cipher = lane.MaxPacketBytes, lane.Suite
		}
	}
	return p
}

// Status implements [api.Daemon].
func (g *gatewayNode) Status() api.Status {
	status := g.gateway.Status()
	s := g.baseStatus()
	s.Role, s.State, s.Name, s.Network = "gateway", "listening", status.Self.Name, status.Network.Name
	s.Prefixes, s.Addresses = status.Network.Prefixes, status.Self.Addresses
	s.Routes, s.Granted, s.Notices = status.Routes, status.Granted, status.Notices
	s.Advertise = g.gateway.Addresses()
	if notice := g.reach.notice(s.Advertise); notice != "" {
		s.Notices = append(s.Notices, notice)
	}
	for _, socket := range g.sockets {
		s.Listen = append(s.Listen, socket.udp.LocalAddr().String())
	}
	nodes, err := g.gateway.Nodes()
	if err != nil {
		s.Notices = append(s.Notices, fmt.Sprintf("nodes cannot be read: %v", err))
	}
	stats := g.engine.Stats().Peers
	for _, n := range nodes {
		if n.ID == status.Self.ID || n.IsRevoked() {
			continue
		}
		p := g.peer(n.Name, n.ID.String(), n.Link, stats[dataplane.PeerID(n.ID)])
		if n.ByToken {
			p.Authentication = "classical authentication"
		}
		for _, a := range n.Addresses {
			p.Addresses = append(p.Addresses, a.String())
		}
		s.Peers = append(s.Peers, p)
	}
	return s
}

// Invite implements [api.Daemon].
func (g *gatewayNode) Invite(_ context.Context, r api.InviteRequest) (api.Invite, error) {
	o := admit.InviteOptions{
		Uses: r.Uses, TTL: time.Duration(r.TTLSeconds) * time.Second, Routes: r.Routes, Stock: r.Stock,
	}
	if o.Uses == 0 {
		o.Uses = defaultUses
	}
	if o.TTL == 0 {
		o.TTL = defaultTTL
	}
	addresses := g.gateway.Addresses()
	if len(addresses) == 0 {
		return api.Invite{}, errors.New("this gateway has no address that others could reach: " +
			"connect it to a network, or start it with --advertise HOST:PORT")
	}
	secret, record, err := g.authority.Invite(o)
	if err != nil {
		return api.Invite{}, err
	}
	defer secret.Wipe()
	invite := api.Invite{Expires: record.Expires, Uses: record.UsesLeft, Addresses: addresses}
	if r.Stock {
		return g.stockInvite(invite, secret)
	}
	invite.Line, err = token.Invite{Gateway: g.state.key.ID(), Secret: secret, Addresses: addresses}.Encode()
	return invite, err
}

// stockInvite describes the tunnel in the words of RFC 9484, for a client of another make.
func (g *gatewayNode) stockInvite(invite api.Invite, secret token.Secret) (api.Invite, error) {
	bearer, err := token.Bearer(secret)
	if err != nil {
		return api.Invite{}, err
	}
	invite.URL = "https://" + invite.Addresses[0] + masque.Path
	invite.Authorization = "Bearer " + bearer
	invite.CACertificate = string(pem.EncodeToMemory(&pem.Block{
		Type: "CERTIFICATE", Bytes: g.authority.Network().CACertificate,
	}))
	return invite, nil
}

// Nodes implements [api.Daemon].
func (g *gatewayNode) Nodes(context.Context) ([]api.Node, error) {
	nodes, err := g.gateway.Nodes()
	if err != nil {
		return nil, err
	}
	out := make([]api.Node, len(nodes))
	for i, n := range nodes {
		out[i] = api.Node{
			Name: n.Name, NodeID: n.ID.String(), Role: string(n.Role), Addresses: n.Addresses,
			Connected: n.Link != nil || n.ID == g.state.key.ID(), Revoked: n.IsRevoked(), Stock: n.Stock, Created: n.Created,
		}
		if !n.LastSeen.IsZero() {
			out[i].LastSeen = &n.LastSeen
		}
	}
	return out, nil
}

// Revoke implements [api.Daemon].
func (g *gatewayNode) Revoke(_ context.Context, name string) error { return g.gateway.Revoke(name) }

// Routes implements [api.Daemon].
func (g *gatewayNode) Routes(context.Context) ([]api.Route, error) {
	routes, err := g.gateway.Routes()
	if err != nil {
		return nil, err
	}
	out := make([]api.Route, len(routes))
	for i, r := range routes {
		out[i] = api.Route{
			Node: r.NodeName, Prefix: r.Prefix, Offered: !r.Offered.IsZero(), Approved: !r.Approved.IsZero(), Active: r.Active,
		}
	}
	return out, nil
}

// Approve implements [api.Daemon].
func (g *gatewayNode) Approve(_ context.Context, node string, prefix netip.Prefix) error {
	return g.gateway.Approve(node, prefix)
}

package daemon

import (
	"context"
	"errors"
	"net/netip"

	"github.com/aethertunnel/aethertunnel/control/api"
	"github.com/aethertunnel/aethertunnel/dataplane"
)

var _ api.Daemon = (*memberNode)(nil)

// errMember answers verbs that only a gateway understands.
var errMember = errors.New("this node is a member: ask the gateway's machine")

// Status implements [api.Daemon].
func (m *memberNode) Status() api.Status {
	status := m.member.Status()
	s := m.baseStatus()
	s.Role, s.State, s.Name, s.Network = "member", "connecting", status.Membership.Name, status.Membership.NetworkName
	s.Prefixes, s.Addresses = status.Membership.Prefixes, status.Membership.Addresses
	s.Routes, s.Granted, s.Notices = status.Routes, status.Granted, status.Notices
	if status.Link != nil && !status.Silent {
		s.State = "connected"
	}
	if status.Unreachable != "" {
		s.Notices = append(s.Notices, "the gateway cannot be reached: "+status.Unreachable)
	}
	id := status.Membership.Gateway
	name := status.GatewayName
	if name == "" {
		name = "gateway"
	}
	p := m.peer(name, id.String(), status.Link, m.engine.Stats().Peers[dataplane.PeerID(id)])
	for _, a := range gatewayAddresses(status.Membership) {
		p.Addresses = append(p.Addresses, a.String())
	}
	s.Peers = []api.Peer{p}
	return s
}

// Invite implements [api.Daemon].
func (m *memberNode) Invite(context.Context, api.InviteRequest) (api.Invite, error) {
	return api.Invite{}, errMember
}

// Nodes implements [api.Daemon].
func (m *memberNode) Nodes(context.Context) ([]api.Node, error) { return nil, errMember }

// Revoke implements [api.Daemon].
func (m *memberNode) Revoke(context.Context, string) error { return errMember }

// Routes implements [api.Daemon].
func (m *memberNode) Routes(context.Context) ([]api.Route, error) { return nil, errMember }

// Approve implements [api.Daemon].
func (m *memberNode) Approve(context.Context, string, netip.Prefix) error { return errMember }

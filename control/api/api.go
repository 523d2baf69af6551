// Package api is the daemon's local interface: HTTP and JSON on a unix socket. The command line uses nothing else.
//
//	GET  /v1/status          Status
//	POST /v1/down            ends the daemon
//	POST /v1/invites         InviteRequest → Invite
//	GET  /v1/nodes           []Node
//	POST /v1/nodes/revoke    RevokeRequest
//	GET  /v1/routes          []Route
//	POST /v1/routes/approve  ApproveRequest
//
// Who may connect is decided by the socket's permissions: root, and the group aetherd where it exists. Errors come as
// {"error": "one line for people"} with a status of 400 or above.
package api

import (
	"context"
	"net/netip"
	"time"

	"github.com/aethertunnel/aethertunnel/dataplane/udp"
	"github.com/aethertunnel/aethertunnel/tun"
)

// Daemon is what the server asks.
type Daemon interface {
	Status() Status
	Down()
	Invite(ctx context.Context, r InviteRequest) (Invite, error)
	Nodes(ctx context.Context) ([]Node, error)
	Revoke(ctx context.Context, name string) error
	Routes(ctx context.Context) ([]Route, error)
	Approve(ctx context.Context, node string, prefix netip.Prefix) error
}

// Status is the state of a daemon.
type Status struct {
	Version   string            `json:"version"`
	PID       int               `json:"pid"`
	Started   time.Time         `json:"started"`
	Role      string            `json:"role"`  // "gateway" or "member"
	State     string            `json:"state"` // "starting", "listening", "connecting", "connected"
	Name      string            `json:"name"`
	NodeID    string            `json:"node_id"`
	Network   string            `json:"network"`
	Prefixes  []netip.Prefix    `json:"prefixes"`
	Device    Device            `json:"device"`
	Addresses []netip.Addr      `json:"addresses"`
	Routes    []netip.Prefix    `json:"routes"`  // what goes into the tunnel
	Granted   []netip.Prefix    `json:"granted"` // LANs behind this node that others may reach
	Sockets   []Socket          `json:"sockets"`
	Listen    []string          `json:"listen,omitempty"`    // a gateway's sockets
	Advertise []string          `json:"advertise,omitempty"` // where the gateway can be reached
	Peers     []Peer            `json:"peers"`
	Drops     map[string]uint64 `json:"drops"` // packets not passed on, by reason
	Host      HostSelectors     `json:"host"`
	Notices   []string          `json:"notices"` // what the operator should know
}

// Device is the virtual NIC.
type Device struct {
	Name     string       `json:"name"`
	MTU      int          `json:"mtu"` // bytes
	Offloads tun.Offloads `json:"offloads"`
}

// Socket is a UDP socket of the daemon.
type Socket struct {
	Address  string       `json:"address"`
	Offloads udp.Offloads `json:"offloads"` // what moves many packets at once, and why it does not
}

// HostSelectors are the numbers by which this daemon's changes to the host are told from others'.
type HostSelectors struct {
	Table    uint32 `json:"table"`
	Mark     uint32 `json:"mark"`
	Priority uint32 `json:"priority"`
}

// Peer is a node this daemon has, or wants, a session with.
type Peer struct {
	Name           string     `json:"name"`
	NodeID         string     `json:"node_id"`
	Connected      bool       `json:"connected"`
	Since          *time.Time `json:"since,omitempty"`
	Remote         string     `json:"remote,omitempty"`       // address and port
	KeyExchange    string     `json:"key_exchange,omitempty"` // negotiated TLS group
	Authentication string     `json:"authentication,omitempty"`
	Path           string     `json:"path,omitempty"`   // what carries packets: "lane", or "session" (QUIC datagrams)
	Cipher         string     `json:"cipher,omitempty"` // of the lane
	RTTMicros      int64      `json:"rtt_micros"`       // smoothed round trip of the QUIC connection
	MaxPacketBytes int        `json:"max_packet_bytes"`
	// InFragments says that the session's packets go in fragments of IPv4, against RFC 9000 section 14: the path carries
	// less than 1,228 bytes.
	InFragments bool `json:"in_fragments,omitempty"`
	// Ignored counts what the session did not understand or refused, by kind; kinds that never came are left out.
	Ignored         map[string]uint64 `json:"ignored,omitempty"`
	Addresses       []string          `json:"addresses"`
	ReceivedPackets uint64            `json:"received_packets"`
	ReceivedBytes   uint64            `json:"received_bytes"`
	SentPackets     uint64            `json:"sent_packets"`
	SentBytes       uint64            `json:"sent_bytes"`
}

// InviteRequest asks a gateway for an invite. Zero values mean the defaults: one use, 24 hours.
type InviteRequest struct {
	Uses       int            `json:"uses"`
	TTLSeconds int64          `json:"ttl_seconds"`
	Routes     []netip.Prefix `json:"routes,omitempty"` // approved for whoever joins by it
	Stock      bool           `json:"stock"`            // for a CONNECT-IP client of another make
}

// Invite is an admission to hand on. It holds a secret.
type Invite struct {
	Line          string    `json:"line,omitempty"` // aether://…
	Expires       time.Time `json:"expires"`
	Uses          int       `json:"uses"`
	Addresses     []string  `json:"addresses"`
	URL           string    `json:"url,omitempty"`            // stock: the URI template (RFC 9484 section 3)
	Authorization string    `json:"authorization,omitempty"`  // stock: the header's value
	CACertificate string    `json:"ca_certificate,omitempty"` // stock: PEM of the network's authority
}

// Node is one node of the network.
type Node struct {
	Name      string       `json:"name"`
	NodeID    string       `json:"node_id"`
	Role      string       `json:"role"`
	Addresses []netip.Addr `json:"addresses"`
	Connected bool         `json:"connected"`
	Revoked   bool         `json:"revoked"`
	Stock     bool         `json:"stock"`
	Created   time.Time    `json:"created"`
	LastSeen  *time.Time   `json:"last_seen,omitempty"`
}

// Route is a subnet behind a node.
type Route struct {
	Node     string       `json:"node"`
	Prefix   netip.Prefix `json:"prefix"`
	Offered  bool         `json:"offered"`
	Approved bool         `json:"approved"`
	Active   bool         `json:"active"` // packets follow it now
}

// RevokeRequest names the node to cut off.
type RevokeRequest struct {
	Name string `json:"name"`
}

// ApproveRequest names the offered route to approve.
type ApproveRequest struct {
	Node   string       `json:"node"`
	Prefix netip.Prefix `json:"prefix"`
}

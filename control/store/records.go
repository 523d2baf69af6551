package store

import (
	"encoding/base32"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// NetworkID names a network: 16 random bytes. Its text form is 26 characters of lower-case base32.
type NetworkID [16]byte

// ParseNetworkID reads the one text form of a network id.
func ParseNetworkID(text string) (NetworkID, error) {
	var id NetworkID
	if len(text) != networkIDEncoding().EncodedLen(len(id)) {
		return NetworkID{}, fmt.Errorf("network id of %d characters", len(text))
	}
	_, err := networkIDEncoding().Decode(id[:], []byte(text))
	if err != nil || id.String() != text {
		return NetworkID{}, fmt.Errorf("network id is not lower-case base32")
	}
	return id, nil
}

// String returns the text form.
func (id NetworkID) String() string { return networkIDEncoding().EncodeToString(id[:]) }

// MarshalText implements [encoding.TextMarshaler].
func (id NetworkID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *NetworkID) UnmarshalText(text []byte) error {
	parsed, err := ParseNetworkID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

func networkIDEncoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// Secret is a private value of any length. It prints as "[redacted]" whatever way it is formatted or logged,
// and has no JSON form; only this package writes it, to the state file. The zero Secret is empty.
type Secret struct {
	// Package fmt cannot call Format on what lies in an unexported field of somebody's struct, and follows one
	// pointer when it prints such a field under a verb that does not fit. It does not follow a second one.
	box *secretBox
}

type secretBox struct {
	value *[]byte
}

const redacted = "[redacted]"

// NewSecret wraps value, which it does not copy.
func NewSecret(value []byte) Secret { return Secret{&secretBox{&value}} }

// Reveal returns the value itself, not a copy.
func (s Secret) Reveal() []byte {
	if s.box == nil {
		return nil
	}
	return *s.box.value
}

// Format implements [fmt.Formatter], so that no verb, flag or nesting prints the value.
func (s Secret) Format(state fmt.State, _ rune) {
	// A formatter has nowhere to report a failing writer; fmt itself ignores it in the same place.
	_, _ = io.WriteString(state, redacted)
}

// String returns "[redacted]".
func (s Secret) String() string { return redacted }

// LogValue implements [slog.LogValuer] with "[redacted]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON always fails.
func (s Secret) MarshalJSON() ([]byte, error) { return nil, errSecretJSON }

// Network is the network that a gateway owns.
type Network struct {
	// ID is random, so that two networks of the same name differ.
	ID NetworkID `json:"id"`
	// Name is for people.
	Name string `json:"name"`
	// Gateway is the node that owns the network.
	Gateway identity.ID `json:"gateway"`
	// Prefixes hold the nodes' addresses, at most one of each family.
	Prefixes []netip.Prefix `json:"prefixes"`
	// CACertificate is the self-signed certificate (DER) of the network's authority.
	CACertificate []byte `json:"ca_certificate"`
	// CAKey is the authority's private key, PKCS #8.
	CAKey Secret `json:"-"`
	// Created is when the network was made.
	Created time.Time `json:"created"`
}

// Role tells what a node does in its network.
type Role string

// The roles.
const (
	// RoleGateway is the node that owns the network.
	RoleGateway Role = "gateway"
	// RoleMember is every other node.
	RoleMember Role = "member"
)

// Node is one node of the network, the gateway included.
type Node struct {
	// ID is the node's id. For a stock client, which has no keys, it is derived from its token.
	ID identity.ID `json:"id"`
	// Name is unique in the network and a DNS label.
	Name string `json:"name"`
	// Public is zero for a stock client.
	Public identity.Public `json:"public"`
	// Addresses are the node's addresses in the network's prefixes, at most one of each family.
	Addresses []netip.Addr `json:"addresses"`
	// Created is when the node was admitted.
	Created time.Time `json:"created"`
	// Revoked is when the node lost admission; zero while it has it.
	Revoked time.Time `json:"revoked,omitzero"`
	// LastSeen is when the node last had a session, in coarse steps; zero if never.
	LastSeen time.Time `json:"last_seen,omitzero"`
	// Role is what the node does.
	Role Role `json:"role"`
	// Certificate is the newest leaf certificate (DER) issued to the node, nil for a stock client.
	Certificate []byte `json:"certificate,omitempty"`
	// CertificateSerial is the serial number of Certificate, hexadecimal.
	CertificateSerial string `json:"certificate_serial,omitempty"`
	// Stock marks a CONNECT-IP client of another make, admitted by bearer token.
	Stock bool `json:"stock,omitempty"`
}

// IsRevoked reports whether the node has lost admission.
func (n Node) IsRevoked() bool { return !n.Revoked.IsZero() }

// Invite is what the gateway remembers of an invite.
type Invite struct {
	// Hash is the hash of the secret; the secret itself is never stored.
	Hash [32]byte `json:"-"`
	// UsesLeft is how many more nodes may join by it.
	UsesLeft int `json:"uses_left"`
	// Created is when it was made.
	Created time.Time `json:"created"`
	// Expires is when it ends. For a stock invite it bounds the first use only.
	Expires time.Time `json:"expires"`
	// Name is the name that the node gets if it asks for none, as a stock client cannot; may be empty.
	Name string `json:"name,omitempty"`
	// Routes are approved for each node that joins by it.
	Routes []netip.Prefix `json:"routes,omitempty"`
	// Stock marks the bearer token of a stock client.
	Stock bool `json:"stock,omitempty"`
}

// Route is a subnet behind a node. It is in force while it is both offered and approved.
type Route struct {
	// Node is the node that the subnet is behind.
	Node identity.ID `json:"node"`
	// Prefix is the subnet.
	Prefix netip.Prefix `json:"prefix"`
	// Offered is when the node began to offer the route; zero if it does not.
	Offered time.Time `json:"offered,omitzero"`
	// Approved is when the operator, or the invite, approved it; zero if nobody did.
	Approved time.Time `json:"approved,omitzero"`
}

// InForce reports whether packets may follow the route.
func (r Route) InForce() bool { return !r.Offered.IsZero() && !r.Approved.IsZero() }

// Membership is what a member remembers of the network it has joined.
type Membership struct {
	// Network is the network's id.
	Network NetworkID `json:"network"`
	// NetworkName is the network's name, for people.
	NetworkName string `json:"network_name"`
	// Gateway is the gateway's id.
	Gateway identity.ID `json:"gateway"`
	// GatewayPublic holds the keys that make the gateway's id.
	GatewayPublic identity.Public `json:"gateway_public"`
	// GatewayAddresses is where the gateway may be reached, HOST:PORT each.
	GatewayAddresses []string `json:"gateway_addresses"`
	// CACertificate is the certificate (DER) of the network's authority.
	CACertificate []byte `json:"ca_certificate"`
	// Chain is the member's own certificate chain (DER), leaf first.
	Chain [][]byte `json:"chain"`
	// Name is the member's name in the network.
	Name string `json:"name"`
	// Addresses are the member's addresses.
	Addresses []netip.Addr `json:"addresses"`
	// Prefixes are the network's prefixes.
	Prefixes []netip.Prefix `json:"prefixes"`
}

// HostSelectors are the numbers by which one daemon's changes to the host are told from another's. They are
// chosen once per state directory.
type HostSelectors struct {
	// Table is the routing table's number.
	Table uint32 `json:"table"`
	// Mark is the firewall mark of the daemon's own packets.
	Mark uint32 `json:"mark"`
	// Priority is that of the first of the daemon's policy rules.
	Priority uint32 `json:"priority"`
}

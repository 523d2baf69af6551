package admit

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// Config is what an [Authority] needs besides its state.
type Config struct {
	// Random is a cryptographic source, safe for concurrent use.
	Random io.Reader
	// Now returns the time, in production [time.Now].
	Now func() time.Time
}

// NetworkParams describes a network to be made.
type NetworkParams struct {
	// Name is the network's name, for people. [SanitizeName] is applied.
	Name string
	// Gateway holds the keys of the node that owns the network.
	Gateway identity.Public
	// GatewayName is the gateway's node name. [SanitizeName] is applied.
	GatewayName string
	// Hosts are the DNS names and IP addresses for the gateway's certificate, for clients that check them.
	Hosts []string
	// Prefixes hold the nodes' addresses: one of each family, one at all, or none. None means a random unique
	// local /48 (RFC 4193) and a free /16 of 100.64.0.0/10 (RFC 6598). IPv6 nodes get addresses of the first
	// /64.
	Prefixes []netip.Prefix
	// Avoid lists prefixes in use, for instance all that the host has routes for. Prefixes so short that they
	// are default routes in disguise are ignored: below 8 bits for IPv4, below 7 for IPv6.
	Avoid []netip.Prefix
}

// Authority is the gateway's side of admission. It is safe for concurrent use.
type Authority struct {
	store   *store.Store
	config  Config
	network store.Network // constant, without its CA key
	ca      *authorityKey // constant
}

// CreateNetwork makes a network with its certificate authority and its first node, the gateway, which takes
// the first address of each prefix. Errors: [ErrNetworkExists], [ErrPrefix], [ErrPrefixConflict],
// [ErrNoFreePrefix].
func CreateNetwork(s *store.Store, c Config, p NetworkParams) (*Authority, error) {
	prefixes, err := choosePrefixes(p, c.Random)
	if err != nil {
		return nil, err
	}
	now := wallClock(c.Now)
	network := store.Network{
		Name:     SanitizeName(p.Name, "network"),
		Gateway:  p.Gateway.ID(),
		Prefixes: prefixes,
		Created:  now,
	}
	if _, err := io.ReadFull(c.Random, network.ID[:]); err != nil {
		return nil, fmt.Errorf("make network id: %w", err)
	}
	ca, err := newAuthority(network.Name, network.ID, now, c.Random)
	if err != nil {
		return nil, err
	}
	network.CACertificate = ca.certificate.Raw
	key, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		return nil, fmt.Errorf("encode CA key: %w", err)
	}
	network.CAKey = store.NewSecret(key)
	a := &Authority{store: s, config: c, network: network, ca: ca}
	gateway := store.Node{
		ID:      p.Gateway.ID(),
		Name:    SanitizeName(p.GatewayName, "gateway"),
		Public:  p.Gateway,
		Created: now,
		Role:    store.RoleGateway,
	}
	if err := s.Update(func(tx *store.Tx) error { return a.establish(tx, gateway, p.Hosts) }); err != nil {
		return nil, err
	}
	a.network.CAKey = store.Secret{}
	return a, nil
}

func (a *Authority) establish(tx *store.Tx, gateway store.Node, hosts []string) error {
	if _, err := tx.Network(); !errors.Is(err, store.ErrNotFound) {
		return errors.Join(ErrNetworkExists, err)
	}
	if err := tx.SetNetwork(a.network); err != nil {
		return err
	}
	gateway, err := a.withAddresses(tx, gateway)
	if err != nil {
		return err
	}
	request := leafRequest{network: a.network.ID, node: gateway, hosts: hosts, now: a.network.Created}
	if gateway, err = a.ca.issue(request, a.config.Random); err != nil {
		return err
	}
	return tx.PutNode(gateway)
}

// Open returns the authority of the network in s. Errors: [ErrNoNetwork].
func Open(s *store.Store, c Config) (*Authority, error) {
	a := &Authority{store: s, config: c}
	err := s.View(func(tx *store.Tx) (err error) {
		a.network, err = tx.Network()
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrNoNetwork
	}
	if err != nil {
		return nil, err
	}
	if a.ca, err = loadAuthority(a.network); err != nil {
		return nil, err
	}
	a.network.CAKey = store.Secret{}
	return a, nil
}

// Network returns the network, without its CA key.
func (a *Authority) Network() store.Network { return a.network }

// Format implements [fmt.Formatter], so that the CA key is never printed.
func (a *Authority) Format(state fmt.State, _ rune) {
	// A formatter has nowhere to report a failing writer; fmt itself ignores it in the same place.
	_, _ = fmt.Fprintf(state, "authority of network %s", a.network.ID)
}

// GatewayChain returns the gateway's own certificate chain (DER, leaf first), with a new leaf if the one on
// record is near its end or not for these host names and addresses.
func (a *Authority) GatewayChain(hosts []string) ([][]byte, error) {
	hosts = slices.Compact(slices.Sorted(slices.Values(hosts)))
	return a.chain(a.network.Gateway, func(leaf *x509.Certificate) bool {
		for _, host := range hosts {
			if leaf.VerifyHostname(host) != nil {
				return false
			}
		}
		return len(hosts) == len(leaf.DNSNames)+len(leaf.IPAddresses)
	}, hosts)
}

// Renew returns the certificate chain (DER, leaf first) of a member, with a new leaf if the one on record is
// near its end. Errors: [ErrUnknownNode], [ErrRevoked], [ErrGatewayNode].
func (a *Authority) Renew(id identity.ID) ([][]byte, error) {
	if id == a.network.Gateway {
		return nil, ErrGatewayNode
	}
	return a.chain(id, func(*x509.Certificate) bool { return true }, nil)
}

func (a *Authority) chain(
	id identity.ID, fits func(*x509.Certificate) bool, hosts []string,
) (chain [][]byte, err error) {
	err = a.store.Batch(func(tx *store.Tx) error {
		node, err := a.admitted(tx, id)
		if err != nil {
			return err
		}
		if node.Stock {
			return fmt.Errorf("%w: stock clients have no certificates", ErrUnknownNode)
		}
		leaf, err := x509.ParseCertificate(node.Certificate)
		if err != nil || !fits(leaf) || NeedsRenewal(leaf, a.now()) || a.now().Before(leaf.NotBefore) {
			request := leafRequest{network: a.network.ID, node: node, hosts: hosts, now: a.now()}
			if node, err = a.ca.issue(request, a.config.Random); err != nil {
				return err
			}
			if err := tx.PutNode(node); err != nil {
				return err
			}
		}
		chain = [][]byte{node.Certificate, a.network.CACertificate}
		return nil
	})
	return chain, err
}

// VerifyPeer checks the certificate chain of a TLS client and returns its node. Errors: [ErrCertificate],
// [ErrWrongNetwork], [*ValidityError], [ErrUnknownNode], [ErrRevoked].
func (a *Authority) VerifyPeer(chain []*x509.Certificate) (store.Node, error) {
	id, err := verifyLeaf(chain, a.ca.certificate, a.network.ID, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return store.Node{}, err
	}
	if err := checkTime(chain[0], a.now()); err != nil {
		return store.Node{}, err
	}
	var node store.Node
	err = a.store.View(func(tx *store.Tx) (err error) {
		node, err = a.admitted(tx, id)
		return err
	})
	if err != nil {
		return store.Node{}, err
	}
	if !publicOf(chain[0]).Equal(node.Public.Ed25519()) {
		return store.Node{}, fmt.Errorf("%w: %s by this key", ErrUnknownNode, id.Short())
	}
	return node, nil
}

// admitted returns a node that is known and not revoked.
func (a *Authority) admitted(tx *store.Tx, id identity.ID) (store.Node, error) {
	node, err := tx.Node(id)
	if errors.Is(err, store.ErrNotFound) {
		return store.Node{}, fmt.Errorf("%w: %s", ErrUnknownNode, id.Short())
	}
	if err != nil {
		return store.Node{}, err
	}
	if node.IsRevoked() {
		return store.Node{}, fmt.Errorf("%w: %s, at %s", ErrRevoked, node.Name, node.Revoked.Format(time.RFC3339))
	}
	return node, nil
}

func (a *Authority) now() time.Time { return wallClock(a.config.Now) }

// wallClock returns a time as it comes back from disk.
func wallClock(now func() time.Time) time.Time { return now().UTC().Round(0) }

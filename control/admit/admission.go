package admit

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

const (
	// MaxAdmission bounds the encoded form of an [Admission] in bytes.
	MaxAdmission = 64 << 10

	maxPrefixes = 2
)

// Admission is the gateway's answer to a [JoinRequest].
type Admission struct {
	// Network is the network's id.
	Network store.NetworkID `json:"network"`
	// NetworkName is the network's name, for people.
	NetworkName string `json:"network_name"`
	// Prefixes are the network's prefixes.
	Prefixes []netip.Prefix `json:"prefixes"`
	// CACertificate is the certificate (DER) of the network's authority.
	CACertificate []byte `json:"ca_certificate"`
	// Chain is the new node's certificate chain (DER), leaf first.
	Chain [][]byte `json:"chain"`
	// Name is the new node's name.
	Name string `json:"name"`
	// Addresses are the new node's addresses.
	Addresses []netip.Addr `json:"addresses"`
}

func (a *Authority) admission(node store.Node) Admission {
	return Admission{
		Network:       a.network.ID,
		NetworkName:   a.network.Name,
		Prefixes:      a.network.Prefixes,
		CACertificate: a.network.CACertificate,
		Chain:         [][]byte{node.Certificate, a.network.CACertificate},
		Name:          node.Name,
		Addresses:     node.Addresses,
	}
}

// Encode returns the admission as JSON.
func (a Admission) Encode() ([]byte, error) {
	encoded, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encode admission: %w", err)
	}
	return encoded, nil
}

// ParseAdmission reads the form of [Admission.Encode]. It checks the shape only. Errors: [ErrAdmission].
func ParseAdmission(data []byte) (Admission, error) {
	if len(data) > MaxAdmission {
		return Admission{}, fmt.Errorf("%w: %d bytes", ErrAdmission, len(data))
	}
	var a Admission
	if err := json.Unmarshal(data, &a); err != nil {
		return Admission{}, fmt.Errorf("%w: %w", ErrAdmission, err)
	}
	return a, nil
}

// Joined is what a member knows apart from the gateway's answer.
type Joined struct {
	// Gateway holds the keys that [VerifyInvited] has returned for the gateway.
	Gateway identity.Public
	// GatewayAddresses is where the gateway may be reached, from the invite.
	GatewayAddresses []string
	// Own holds the member's own keys.
	Own identity.Public
	// Now is the time.
	Now time.Time
}

// Membership checks the gateway's answer and makes of it what the member keeps: the certificate must be for
// the member's own keys, signed by the authority in the answer and inside its time, and the addresses must be
// in the network's prefixes. Errors: [ErrAdmission], [ErrCertificate], [ErrWrongNetwork], [*ValidityError].
func (a Admission) Membership(j Joined) (store.Membership, error) {
	if err := a.checkNumbers(); err != nil {
		return store.Membership{}, err
	}
	if err := a.checkChain(j); err != nil {
		return store.Membership{}, err
	}
	for _, address := range j.GatewayAddresses {
		if _, err := token.ParseAddress(address); err != nil {
			return store.Membership{}, err
		}
	}
	return store.Membership{
		Network:          a.Network,
		NetworkName:      a.NetworkName,
		Gateway:          j.Gateway.ID(),
		GatewayPublic:    j.Gateway,
		GatewayAddresses: slices.Clone(j.GatewayAddresses),
		CACertificate:    a.CACertificate,
		Chain:            a.Chain,
		Name:             a.Name,
		Addresses:        a.Addresses,
		Prefixes:         a.Prefixes,
	}, nil
}

// checkNumbers also keeps hostile names out of the member's terminal.
func (a Admission) checkNumbers() error {
	if a.Name == "" || SanitizeName(a.Name, "") != a.Name || SanitizeName(a.NetworkName, "") != a.NetworkName {
		return fmt.Errorf("%w: name %.80q in network %.80q", ErrAdmission, a.Name, a.NetworkName)
	}
	if len(a.Prefixes) == 0 || len(a.Prefixes) > maxPrefixes || len(a.Addresses) != len(a.Prefixes) {
		return fmt.Errorf("%w: %d addresses in %d prefixes", ErrAdmission, len(a.Addresses), len(a.Prefixes))
	}
	if err := checkPrefixes(a.Prefixes, nil); err != nil {
		return fmt.Errorf("%w: %w", ErrAdmission, err)
	}
	for i, address := range a.Addresses {
		if address.Zone() != "" || !a.Prefixes[i].Contains(address) {
			return fmt.Errorf("%w: address %s is not in %s", ErrAdmission, address, a.Prefixes[i])
		}
	}
	return nil
}

func (a Admission) checkChain(j Joined) error {
	ca, err := x509.ParseCertificate(a.CACertificate)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAdmission, err)
	}
	if len(a.Chain) == 0 || len(a.Chain) > maxChain {
		return fmt.Errorf("%w: chain of %d", ErrAdmission, len(a.Chain))
	}
	leaf, err := x509.ParseCertificate(a.Chain[0])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAdmission, err)
	}
	id, err := verifyLeaf([]*x509.Certificate{leaf}, ca, a.Network, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAdmission, err)
	}
	if id != j.Own.ID() || !j.Own.Ed25519().Equal(publicOf(leaf)) {
		return fmt.Errorf("%w: the certificate is for node %s", ErrAdmission, id.Short())
	}
	return checkTime(leaf, j.Now)
}

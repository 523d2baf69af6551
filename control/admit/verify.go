package admit

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// VerifyInvited checks the certificate chain that an invitee got in the TLS handshake, before it says
// anything: the keys in the leaf must make the id that the invite names, and the leaf must be inside its
// time. The TLS handshake has proven the Ed25519 key; the ML-DSA-65 key is in the certificate. It returns the
// gateway's keys. Errors: [ErrWrongGateway], [ErrCertificate], [*ValidityError].
func VerifyInvited(chain []*x509.Certificate, gateway identity.ID, now time.Time) (identity.Public, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return identity.Public{}, fmt.Errorf("%w: chain of %d", ErrCertificate, len(chain))
	}
	leaf := chain[0]
	public, err := gatewayPublic(leaf)
	if err != nil {
		// Any web server may answer at the address, with a certificate that is fine for a web server.
		return identity.Public{}, fmt.Errorf("%w: expected %s: %w", ErrWrongGateway, gateway.Short(), err)
	}
	if public.ID() != gateway {
		return identity.Public{}, fmt.Errorf("%w: expected %s, found %s",
			ErrWrongGateway, gateway.Short(), public.ID().Short())
	}
	if err := checkUse(leaf, x509.ExtKeyUsageServerAuth); err != nil {
		return identity.Public{}, err
	}
	return public, checkTime(leaf, now)
}

// VerifyGateway checks the chain of a gateway whose network m has joined: signed by that network's authority,
// for that gateway's keys, inside its time. Errors: [ErrWrongNetwork], [ErrWrongGateway], [ErrCertificate],
// [*ValidityError].
func VerifyGateway(chain []*x509.Certificate, m store.Membership, now time.Time) error {
	ca, err := x509.ParseCertificate(m.CACertificate)
	if err != nil {
		return fmt.Errorf("parse the network's CA certificate: %w", err)
	}
	node, err := verifyLeaf(chain, ca, m.Network, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return err
	}
	if node != m.Gateway || !m.GatewayPublic.Ed25519().Equal(publicOf(chain[0])) {
		return fmt.Errorf("%w: expected %s, found %s", ErrWrongGateway, m.Gateway.Short(), node.Short())
	}
	return checkTime(chain[0], now)
}

// verifyLeaf checks everything about a leaf except its time, and returns the id in it. Whatever the
// authority's key did not sign counts as another network's.
func verifyLeaf(
	chain []*x509.Certificate, ca *x509.Certificate, network store.NetworkID, use x509.ExtKeyUsage,
) (identity.ID, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return identity.ID{}, fmt.Errorf("%w: chain of %d", ErrCertificate, len(chain))
	}
	leaf := chain[0]
	if publicOf(leaf) == nil {
		return identity.ID{}, fmt.Errorf("%w: its key is not Ed25519", ErrCertificate)
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return identity.ID{}, fmt.Errorf("%w: not signed by the authority of network %s", ErrWrongNetwork, network)
	}
	found, node, err := NodeOf(leaf)
	if err != nil {
		return identity.ID{}, err
	}
	if found != network {
		return identity.ID{}, fmt.Errorf("%w: %s instead of %s", ErrWrongNetwork, found, network)
	}
	return node, checkUse(leaf, use)
}

func checkUse(leaf *x509.Certificate, use x509.ExtKeyUsage) error {
	switch {
	case leaf.IsCA:
		return fmt.Errorf("%w: it is an authority's", ErrCertificate)
	case !slices.Contains(leaf.ExtKeyUsage, use), leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fmt.Errorf("%w: it is not for this use", ErrCertificate)
	case len(leaf.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("%w: critical extension %v", ErrCertificate, leaf.UnhandledCriticalExtensions[0])
	}
	return nil
}

func checkTime(leaf *x509.Certificate, now time.Time) error {
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return &ValidityError{Now: now, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	}
	return nil
}

// gatewayPublic joins the leaf's own key with the ML-DSA-65 key in its extension.
func gatewayPublic(leaf *x509.Certificate) (identity.Public, error) {
	for _, extension := range leaf.Extensions {
		if !extension.Id.Equal(mldsaExtension()) {
			continue
		}
		var mldsa []byte
		if rest, err := asn1.Unmarshal(extension.Value, &mldsa); err != nil || len(rest) > 0 {
			return identity.Public{}, fmt.Errorf("%w: malformed ML-DSA key", ErrCertificate)
		}
		public, err := identity.NewPublic(publicOf(leaf), mldsa)
		if err != nil {
			return identity.Public{}, fmt.Errorf("%w: %w", ErrCertificate, err)
		}
		return public, nil
	}
	return identity.Public{}, fmt.Errorf("%w: not a gateway's", ErrCertificate)
}

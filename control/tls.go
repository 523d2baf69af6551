package control

import (
	"crypto/tls"
	"errors"
	"time"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// errNoHandshake cannot happen: crypto/tls calls VerifyConnection after it has the peer's certificates.
var errNoHandshake = errors.New("no TLS handshake")

// memberTLS is how a member that has joined meets its gateway: it shows the certificate it was given, and trusts
// nothing but its own network's authority.
func memberTLS(key *identity.Private, m store.Membership, policy masque.KeyExchange, now func() time.Time) *tls.Config {
	return masque.TLSConfig(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: m.Chain, PrivateKey: key.Signer()}},
		// The checks of crypto/tls want a host name and a public authority; ours are in VerifyConnection, which runs
		// on every handshake.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(s tls.ConnectionState) error {
			return admit.VerifyGateway(s.PeerCertificates, m, now())
		},
	}, policy)
}

// keyExchange names the negotiated group, and says so when no post-quantum secret is in it.
func keyExchange(s tls.ConnectionState) string {
	if masque.Hybrid(s.CurveID) {
		return masque.NegotiatedGroup(s)
	}
	return masque.NegotiatedGroup(s) + " (classical)"
}

// GatewayTLS is how a gateway meets everyone: with its own certificate, and asking for one, which the request handler
// judges.
func GatewayTLS(certificate tls.Certificate, policy masque.KeyExchange) *tls.Config {
	return masque.TLSConfig(&tls.Config{
		Certificates:           []tls.Certificate{certificate},
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true,
	}, policy)
}

package admit

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

const (
	// Validity is how long a node's certificate lives.
	Validity = 365 * 24 * time.Hour
	// RenewBefore is how long before its end a certificate should be renewed.
	RenewBefore = 90 * 24 * time.Hour
	// Backdate is how long before its making a certificate becomes valid.
	Backdate = time.Hour

	authorityValidity = 20 * Validity
	uriScheme         = "aether"
	serialSize        = 16
	maxChain          = 4 // certificates looked at
)

// mldsaExtension marks the extension that carries the ML-DSA-65 public key, an OCTET STRING. The arc below
// 2.25 needs no registration (ITU-T X.667); the number is random.
func mldsaExtension() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 25, 1_604_737_918} }

// leafRequest is what a certificate is made of.
type leafRequest struct {
	network store.NetworkID
	node    store.Node
	hosts   []string // DNS names and IP addresses, for the gateway
	now     time.Time
}

// authorityKey is the CA of one network.
type authorityKey struct {
	certificate *x509.Certificate
	key         ed25519.PrivateKey
}

func newAuthority(name string, id store.NetworkID, now time.Time, random io.Reader) (*authorityKey, error) {
	var seed [ed25519.SeedSize]byte
	defer clear(seed[:])
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed[:])
	serial, err := newSerial(random)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{CommonName: name, Organization: []string{"AetherTunnel network " +
			id.String()}},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(authorityValidity),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs:                  []*url.URL{{Scheme: uriScheme, Host: id.String()}},
	}
	der, err := x509.CreateCertificate(random, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse CA certificate: %w", err)
	}
	return &authorityKey{certificate: certificate, key: key}, nil
}

func loadAuthority(n store.Network) (*authorityKey, error) {
	certificate, err := x509.ParseCertificate(n.CACertificate)
	if err != nil {
		return nil, fmt.Errorf("parse CA certificate: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(n.CAKey.Reveal())
	if err != nil {
		return nil, fmt.Errorf("parse CA key: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok || !bytes.Equal(key[ed25519.SeedSize:], publicOf(certificate)) {
		return nil, fmt.Errorf("%w: CA key and CA certificate do not belong together", ErrCertificate)
	}
	return &authorityKey{certificate: certificate, key: key}, nil
}

// issue makes a leaf certificate (DER) for the node and sets the node's certificate fields to it.
func (a *authorityKey) issue(r leafRequest, random io.Reader) (store.Node, error) {
	serial, err := newSerial(random)
	if err != nil {
		return store.Node{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: r.node.Name},
		NotBefore:             r.now.Add(-Backdate),
		NotAfter:              r.now.Add(Validity),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{nodeURI(r.network, r.node.ID)},
	}
	if r.node.Role == store.RoleGateway {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		value, err := asn1.Marshal(r.node.Public.MLDSA())
		if err != nil {
			return store.Node{}, fmt.Errorf("encode ML-DSA key: %w", err)
		}
		template.ExtraExtensions = []pkix.Extension{{Id: mldsaExtension(), Value: value}}
		for _, host := range r.hosts {
			if ip, err := netip.ParseAddr(host); err == nil {
				template.IPAddresses = append(template.IPAddresses, ip.Unmap().AsSlice())
			} else {
				template.DNSNames = append(template.DNSNames, host)
			}
		}
	}
	der, err := x509.CreateCertificate(random, template, a.certificate, r.node.Public.Ed25519(), a.key)
	if err != nil {
		return store.Node{}, fmt.Errorf("make certificate for %s: %w", r.node.Name, err)
	}
	r.node.Certificate = der
	r.node.CertificateSerial = hex.EncodeToString(serial.FillBytes(make([]byte, serialSize)))
	return r.node, nil
}

// NeedsRenewal reports whether the certificate's end is nearer than [RenewBefore].
func NeedsRenewal(certificate *x509.Certificate, now time.Time) bool {
	return now.Add(RenewBefore).After(certificate.NotAfter)
}

// TLSCertificate joins a chain (DER, leaf first) with the key that it is for.
func TLSCertificate(chain [][]byte, key crypto.Signer) (tls.Certificate, error) {
	if len(chain) == 0 {
		return tls.Certificate{}, fmt.Errorf("%w: empty chain", ErrCertificate)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok || !public.Equal(leaf.PublicKey) {
		return tls.Certificate{}, fmt.Errorf("%w: it is for another key", ErrCertificate)
	}
	return tls.Certificate{Certificate: slices.Clone(chain), PrivateKey: key, Leaf: leaf}, nil
}

// NodeOf returns the ids that a certificate of any network claims. It checks nothing but the form. Errors:
// [ErrCertificate].
func NodeOf(certificate *x509.Certificate) (store.NetworkID, identity.ID, error) {
	if len(certificate.URIs) != 1 || certificate.URIs[0].Scheme != uriScheme {
		return store.NetworkID{}, identity.ID{}, fmt.Errorf("%w: no node id in it", ErrCertificate)
	}
	uri := certificate.URIs[0]
	network, err := store.ParseNetworkID(uri.Host)
	if err != nil {
		return store.NetworkID{}, identity.ID{}, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	if uri.Path == "" || uri.String() != uriScheme+"://"+uri.Host+uri.Path {
		return store.NetworkID{}, identity.ID{}, fmt.Errorf("%w: no node id in it", ErrCertificate)
	}
	node, err := identity.ParseID(uri.Path[1:])
	if err != nil {
		return store.NetworkID{}, identity.ID{}, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return network, node, nil
}

func nodeURI(network store.NetworkID, node identity.ID) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: network.String(), Path: "/" + node.String()}
}

func newSerial(random io.Reader) (*big.Int, error) {
	var raw [serialSize]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	raw[0] = raw[0]&0x7f | 0x40 // positive and of one length (RFC 5280 section 4.1.2.2)
	return new(big.Int).SetBytes(raw[:]), nil
}

// publicOf returns the certificate's Ed25519 key, nil if it has another kind.
func publicOf(certificate *x509.Certificate) ed25519.PublicKey {
	key, ok := certificate.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil
	}
	return key
}

package admit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// membership joins key to w as a member would, without a wire between.
func (w *world) membership(key *identity.Private, name string) store.Membership {
	w.t.Helper()
	m, err := w.join(key, name).Membership(Joined{
		Gateway: w.gateway.Public(), GatewayAddresses: []string{"gw.example.net:443"}, Own: key.Public(),
		Now: w.clock.Now(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// forge makes a certificate that differs from a good one in what change does.
func (w *world) forge(key *identity.Private, change func(*x509.Certificate)) []*x509.Certificate {
	w.t.Helper()
	now := w.clock.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "forged"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{nodeURI(w.Network().ID, key.ID())}, BasicConstraintsValid: true,
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, w.ca.certificate, key.Public().Ed25519(), w.ca.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return parseChain(w.t, [][]byte{der})
}

func TestVerifyPeer(t *testing.T) {
	t.Parallel()
	w, foreign := newWorld(t), newWorld(t)
	key, stranger := newKey(t), newKey(t)
	member := w.membership(key, "laptop")
	foreign.membership(key, "laptop") // the same keys in another network
	good := parseChain(t, member.Chain)
	if node, err := w.VerifyPeer(good); err != nil || node.Name != "laptop" ||
		node.CertificateSerial != fmt.Sprintf("%032x", good[0].SerialNumber) {
		t.Fatalf("%+v, %v", node, err)
	}
	_, err := foreign.VerifyPeer(good)
	wantError(t, "certificate of another network", err, ErrWrongNetwork)

	selfSigned := *w.Authority
	selfSigned.ca, err = newAuthority("home", w.Network().ID, w.clock.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	impostor := &world{Authority: &selfSigned, t: t, clock: w.clock}
	unchanged := func(*x509.Certificate) {}
	uri := func(text string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			parsed, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs = []*url.URL{parsed}
		}
	}
	network, id := w.Network().ID.String(), key.ID().String()
	cases := []struct {
		name  string
		chain []*x509.Certificate
		want  error
	}{
		{"nothing wrong", w.forge(key, unchanged), nil},
		{"empty chain", nil, ErrCertificate},
		{"long chain", append(good, make([]*x509.Certificate, maxChain)...), ErrCertificate},
		{"another authority of the same name", impostor.forge(key, unchanged), ErrWrongNetwork},
		{"the authority itself", good[1:], ErrCertificate},
		{"node that never joined", w.forge(stranger, unchanged), ErrUnknownNode},
		{"id of another node", w.forge(stranger, uri("aether://"+network+"/"+id)), ErrUnknownNode},
		{
			"other network in it", w.forge(key, uri("aether://"+foreign.Network().ID.String()+"/"+id)),
			ErrWrongNetwork,
		},
		{"no URI", w.forge(key, func(c *x509.Certificate) { c.URIs = nil }), ErrCertificate},
		{
			"two URIs", w.forge(key, func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }),
			ErrCertificate,
		},
		{"other scheme", w.forge(key, uri("https://"+network+"/"+id)), ErrCertificate},
		{"port", w.forge(key, uri("aether://"+network+":1/"+id)), ErrCertificate},
		{"user", w.forge(key, uri("aether://x@"+network+"/"+id)), ErrCertificate},
		{"query", w.forge(key, uri("aether://"+network+"/"+id+"?x")), ErrCertificate},
		{"fragment", w.forge(key, uri("aether://"+network+"/"+id+"#x")), ErrCertificate},
		{"no path", w.forge(key, uri("aether://"+network)), ErrCertificate},
		{
			"escaped path", w.forge(key, uri("aether://"+network+"/%"+fmt.Sprintf("%x", id[0])+id[1:])),
			ErrCertificate,
		},
		{"upper case", w.forge(key, uri("aether://"+network+"/"+strings.ToUpper(id))), ErrCertificate},
		{
			"for servers only", w.forge(key, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }),
			ErrCertificate,
		},
		{
			"not for signatures", w.forge(key, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }),
			ErrCertificate,
		},
		{"critical extension", w.forge(key, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), ErrCertificate},
		{
			"expired", w.forge(key, func(c *x509.Certificate) { c.NotAfter = w.clock.Now().Add(-time.Second) }),
			ErrExpired,
		},
		{
			"early", w.forge(key, func(c *x509.Certificate) { c.NotBefore = w.clock.Now().Add(time.Second) }),
			ErrNotYetValid,
		},
	}
	for _, c := range cases {
		_, err := w.VerifyPeer(c.chain)
		wantError(t, c.name, err, c.want)
	}
}

func TestVerifyInvited(t *testing.T) {
	t.Parallel()
	w, foreign := newWorld(t), newWorld(t)
	now := w.clock.Now()
	der, err := w.GatewayChain([]string{"gw.example.net"})
	if err != nil {
		t.Fatal(err)
	}
	chain := parseChain(t, der)
	public, err := VerifyInvited(chain, w.gateway.ID(), now)
	if err != nil || !public.Equal(w.gateway.Public()) {
		t.Fatal(err)
	}
	check := func(what string, chain []*x509.Certificate, id identity.ID, now time.Time, want error) {
		t.Helper()
		_, err := VerifyInvited(chain, id, now)
		wantError(t, what, err, want)
	}
	member := parseChain(t, w.membership(newKey(t), "laptop").Chain)
	check("another gateway", chain, foreign.gateway.ID(), now, ErrWrongGateway)
	check("a member", member, w.gateway.ID(), now, ErrWrongGateway)
	check("no certificate", nil, w.gateway.ID(), now, ErrCertificate)
	check("clock a day slow", chain, w.gateway.ID(), now.Add(-24*time.Hour), ErrNotYetValid)
	check("clock years fast", chain, w.gateway.ID(), now.Add(2*Validity), ErrExpired)
	for _, value := range [][]byte{nil, {4, 1, 0}, append(leafExtension(t, chain[0]), 0)} {
		odd := w.forge(w.gateway, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: mldsaExtension(), Value: value}}
		})
		check("malformed key", odd, w.gateway.ID(), now, ErrWrongGateway)
	}
	// The right ML-DSA key beside another Ed25519 key is another node.
	mixed := w.forge(newKey(t), func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: mldsaExtension(), Value: leafExtension(t, chain[0])}}
	})
	check("half the keys", mixed, w.gateway.ID(), now, ErrWrongGateway)
}

func leafExtension(t *testing.T, leaf *x509.Certificate) []byte {
	t.Helper()
	for _, extension := range leaf.Extensions {
		if extension.Id.Equal(mldsaExtension()) {
			return bytes.Clone(extension.Value)
		}
	}
	t.Fatal("no ML-DSA key in the certificate")
	return nil
}

func TestVerifyGateway(t *testing.T) {
	t.Parallel()
	w, foreign := newWorld(t), newWorld(t)
	key := newKey(t)
	m := w.membership(key, "laptop")
	chainOf := func(w *world) []*x509.Certificate {
		der, err := w.GatewayChain(nil)
		if err != nil {
			t.Fatal(err)
		}
		return parseChain(t, der)
	}
	now := w.clock.Now()
	if err := VerifyGateway(chainOf(w), m, now); err != nil {
		t.Fatal(err)
	}
	wantError(t, "another network", VerifyGateway(chainOf(foreign), m, now), ErrWrongNetwork)
	wantError(t, "a member", VerifyGateway(parseChain(t, m.Chain), m, now), ErrCertificate)
	other := w.forge(key, func(*x509.Certificate) {})
	wantError(t, "a member with a server's certificate", VerifyGateway(other, m, now), ErrWrongGateway)
	wantError(t, "late", VerifyGateway(chainOf(w), m, now.Add(2*Validity)), ErrExpired)
	m.GatewayPublic = foreign.gateway.Public()
	wantError(t, "other keys", VerifyGateway(chainOf(w), m, now), ErrWrongGateway)
}

func TestValidityErrorTellsBothTimes(t *testing.T) {
	t.Parallel()
	now := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	begin := time.Date(2030, 6, 1, 0, 0, 0, 0, time.UTC)
	early := (&ValidityError{Now: now, NotBefore: begin, NotAfter: begin.Add(Validity)}).Error()
	late := (&ValidityError{
		Now: begin.Add(2 * Validity), NotBefore: begin,
		NotAfter: begin.Add(Validity),
	}).Error()
	for text, parts := range map[string][]string{
		early: {"check the clock", "2001-01-01T00:00:00Z", "2030-06-01T00:00:00Z"},
		late:  {"check the clock", "2032-05-31T00:00:00Z", "2031-06-01T00:00:00Z"},
	} {
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%q lacks %q", text, part)
			}
		}
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := newKey(t)
	first := w.membership(key, "laptop").Chain
	same, err := w.Renew(key.ID())
	if err != nil || !bytes.Equal(same[0], first[0]) {
		t.Errorf("a fresh certificate was renewed: %v", err)
	}
	leaf := parseChain(t, first)[0]
	if leaf.NotBefore != w.clock.Now().Add(-Backdate) || leaf.NotAfter != w.clock.Now().Add(Validity) ||
		NeedsRenewal(leaf, w.clock.Now()) {
		t.Errorf("valid from %s to %s", leaf.NotBefore, leaf.NotAfter)
	}
	w.clock.advance(Validity - RenewBefore + time.Second)
	if !NeedsRenewal(leaf, w.clock.Now()) {
		t.Error("no renewal needed near the end")
	}
	second, err := w.Renew(key.ID())
	if err != nil || bytes.Equal(second[0], first[0]) {
		t.Fatalf("not renewed: %v", err)
	}
	for name, chain := range map[string][][]byte{"old": first, "new": second} {
		if _, err := w.VerifyPeer(parseChain(t, chain)); err != nil {
			t.Errorf("%s certificate: %v", name, err)
		}
	}
	_, err = w.Renew(w.gateway.ID())
	wantError(t, "gateway", err, ErrGatewayNode)
	_, err = w.Renew(identity.ID{1})
	wantError(t, "unknown", err, ErrUnknownNode)
}

func TestGatewayChainFollowsHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	chain := func(hosts ...string) []byte {
		der, err := w.GatewayChain(hosts)
		if err != nil {
			t.Fatal(err)
		}
		leaf := parseChain(t, der)[0]
		for _, host := range hosts {
			if err := leaf.VerifyHostname(host); err != nil {
				t.Error(err)
			}
		}
		return der[0]
	}
	first := chain("gw.example.net")
	moved := chain("192.0.2.1", "2001:db8::1", "gw.example.net", "192.0.2.1")
	w.restart()
	again := chain("gw.example.net", "192.0.2.1", "2001:db8::1")
	fewer := chain("192.0.2.1")
	if bytes.Equal(first, moved) || !bytes.Equal(moved, again) || bytes.Equal(moved, fewer) {
		t.Error("the certificate does not follow its hosts")
	}
}

// The whole way over real TLS: pin the gateway, join with a request bound to the session, come back with the
// certificate.
func TestJoinOverTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := newKey(t)
	proof := w.invite(InviteOptions{Uses: 1})
	der, err := w.GatewayChain(nil)
	if err != nil {
		t.Fatal(err)
	}
	serverCertificate, err := TLSCertificate(der, w.gateway.Signer())
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{
		Certificates: []tls.Certificate{serverCertificate}, ClientAuth: tls.RequestClientCert,
		MinVersion: tls.VersionTLS13,
	}
	const label = "EXPORTER-test"
	pinned := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
	clientState, serverState := handshake(t, pinned, server)
	gateway, err := VerifyInvited(clientState.PeerCertificates, w.gateway.ID(), w.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	clientBinding, e1 := clientState.ExportKeyingMaterial(label, nil, MinBinding)
	serverBinding, e2 := serverState.ExportKeyingMaterial(label, nil, MinBinding)
	if err := errors.Join(e1, e2); err != nil {
		t.Fatal(err)
	}
	wire, err := request(t, key, "laptop", Proof{Secret: proof.Secret, Binding: clientBinding}).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	received, err := ParseJoinRequest(wire)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := w.Redeem(received, Proof{Secret: proof.Secret, Binding: serverBinding})
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := answer.Encode()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseAdmission(encoded)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parsed.Membership(Joined{Gateway: gateway, Own: key.Public(), Now: w.clock.Now()})
	if err != nil {
		t.Fatal(err)
	}
	own, err := TLSCertificate(m.Chain, key.Signer())
	if err != nil {
		t.Fatal(err)
	}
	withCertificate := pinned.Clone()
	withCertificate.Certificates = []tls.Certificate{own}
	clientState, serverState = handshake(t, withCertificate, server)
	if err := VerifyGateway(clientState.PeerCertificates, m, w.clock.Now()); err != nil {
		t.Error(err)
	}
	if node, err := w.VerifyPeer(serverState.PeerCertificates); err != nil || node.ID != key.ID() {
		t.Error(node.Name, err)
	}
	_, err = TLSCertificate(m.Chain, newKey(t).Signer())
	wantError(t, "certificate for another key", err, ErrCertificate)
}

func handshake(t *testing.T, client, server *tls.Config) (clientState, serverState tls.ConnectionState) {
	t.Helper()
	a, b := net.Pipe()
	clientConn, serverConn := tls.Client(a, client), tls.Server(b, server)
	done := make(chan error, 1)
	go func() { done <- serverConn.HandshakeContext(t.Context()) }()
	if err := clientConn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The server ends with its session ticket, which waits in the pipe for a reader; the client needs none of
	// it.
	go func() { _, _ = clientConn.Read(make([]byte, 1)) }()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	clientState, serverState = clientConn.ConnectionState(), serverConn.ConnectionState()
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Error(err)
	}
	return clientState, serverState
}

func TestMembershipRefusals(t *testing.T) {
	t.Parallel()
	w, foreign := newWorld(t), newWorld(t)
	key := newKey(t)
	good := w.join(key, "laptop")
	other := foreign.join(key, "laptop")
	second := w.join(newKey(t), "second")
	joined := Joined{
		Gateway: w.gateway.Public(), GatewayAddresses: []string{"gw:443"}, Own: key.Public(),
		Now: w.clock.Now(),
	}
	cases := []struct {
		name   string
		change func(*Admission, *Joined)
	}{
		{"CA of another network", func(a *Admission, _ *Joined) { a.CACertificate = other.CACertificate }},
		{"id of another network", func(a *Admission, _ *Joined) { a.Network = other.Network }},
		{"certificate of another node", func(a *Admission, _ *Joined) { a.Chain = second.Chain }},
		{"no certificate", func(a *Admission, _ *Joined) { a.Chain = nil }},
		{"broken certificate", func(a *Admission, _ *Joined) { a.Chain = [][]byte{{1}} }},
		{"broken CA", func(a *Admission, _ *Joined) { a.CACertificate = nil }},
		{"name with an escape sequence", func(a *Admission, _ *Joined) { a.Name = "\x1b[2J" }},
		{"network name with one", func(a *Admission, _ *Joined) { a.NetworkName = "\x1b[2J" }},
		{"no name", func(a *Admission, _ *Joined) { a.Name = "" }},
		{"no prefixes", func(a *Admission, _ *Joined) { a.Prefixes, a.Addresses = nil, nil }},
		{"loopback", func(a *Admission, _ *Joined) { a.Prefixes = prefixes("127.0.0.0/8", "fd00::/48") }},
		{"everything", func(a *Admission, _ *Joined) { a.Prefixes = prefixes("0.0.0.0/0", "::/0") }},
		{"addresses swapped", func(a *Admission, _ *Joined) {
			a.Addresses = append(a.Addresses[1:],
				a.Addresses[0])
		}},
		{"an address less", func(a *Admission, _ *Joined) { a.Addresses = a.Addresses[1:] }},
		{"clock off", func(_ *Admission, j *Joined) { j.Now = j.Now.Add(-48 * time.Hour) }},
		{"bad gateway address", func(_ *Admission, j *Joined) { j.GatewayAddresses = []string{"gw"} }},
	}
	for _, c := range cases {
		a, j := good, joined
		a.Addresses = append(a.Addresses[:0:0], a.Addresses...)
		c.change(&a, &j)
		if m, err := a.Membership(j); err == nil {
			t.Errorf("%s: %+v", c.name, m)
		}
	}
	if _, err := good.Membership(joined); err != nil {
		t.Error(err)
	}
}

func TestAuthorityKeyMustFit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	err = w.store.Update(func(tx *store.Tx) error {
		network, err := tx.Network()
		network.CAKey = store.NewSecret(der)
		return errors.Join(err, tx.SetNetwork(network))
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(w.store, w.config())
	wantError(t, "CA key of another network", err, ErrCertificate)
}

func TestAuthorityDoesNotPrint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	type holder struct{ hidden *Authority }
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", w.Authority)
		fmt.Fprintf(&out, verb+"\n", []any{w.Authority, holder{w.Authority}, &holder{w.Authority}, w.Network()})
	}
	seed := w.ca.key.Seed()[:6]
	for _, form := range []string{
		string(seed), fmt.Sprintf("%x", seed), fmt.Sprintf("%X", seed),
		strings.Trim(fmt.Sprint(seed), "[]"),
	} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the CA key leaks as %q", form)
		}
	}
}

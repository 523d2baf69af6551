package daemon

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/store"
)

// gatewayCertificates are those of a gateway whose clock and addresses a test sets.
type gatewayCertificates struct {
	*certificates
	store *store.Store
	clock time.Time
	hosts []string
	told  []error
}

func newGatewayCertificates(t *testing.T, clock time.Time) *gatewayCertificates {
	t.Helper()
	s := open(t, t.TempDir())
	g := &gatewayCertificates{store: s.store, clock: clock, hosts: []string{"192.0.2.1:443"}}
	read := func() time.Time { return g.clock }
	authority, err := admit.CreateNetwork(s.store, admit.Config{Random: rand.Reader, Now: read}, admit.NetworkParams{
		Name: "home", Gateway: s.key.Public(), GatewayName: "router",
	})
	if err != nil {
		t.Fatal(err)
	}
	g.certificates = &certificates{
		authority: authority, key: s.key, addresses: func() []string { return g.hosts }, now: read,
		failed: func(err error) { g.told = append(g.told, err) },
	}
	return g
}

// serial identifies the certificate that a handshake gets, which must be valid.
func (g *gatewayCertificates) serial(t *testing.T, host string) string {
	t.Helper()
	certificate, err := g.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf := certificate.Leaf
	if g.clock.Before(leaf.NotBefore) || g.clock.After(leaf.NotAfter) {
		t.Errorf("at %s the certificate is for %s to %s", g.clock, leaf.NotBefore, leaf.NotAfter)
	}
	if err := leaf.VerifyHostname(host); err != nil {
		t.Error(err)
	}
	return leaf.SerialNumber.String()
}

// A machine without a battery for its clock boots with a wrong time and learns the right one from the network.
func TestCertificateAfterTheClockWasSet(t *testing.T) {
	right := time.Now()
	for name, wrong := range map[string]time.Duration{
		"slow": -10 * 365 * 24 * time.Hour, "fast": 2 * 365 * 24 * time.Hour, "fast by hours": 3 * time.Hour,
	} {
		g := newGatewayCertificates(t, right.Add(wrong))
		first := g.serial(t, "192.0.2.1")
		if again := g.serial(t, "192.0.2.1"); again != first {
			t.Errorf("%s: another certificate for every handshake", name)
		}
		g.clock = right
		second := g.serial(t, "192.0.2.1")
		if second == first {
			t.Errorf("%s: the certificate of the wrong time stays in use", name)
		}
		g.clock = right.Add(2 * certificateAge)
		if later := g.serial(t, "192.0.2.1"); later != second {
			t.Errorf("%s: renewed without need", name)
		}
	}
}

// A gateway whose state cannot be written goes on with the certificate it has, as long as that is valid.
func TestCertificateThatCannotBeReplaced(t *testing.T) {
	g := newGatewayCertificates(t, time.Now())
	first := g.serial(t, "192.0.2.1")
	if err := g.store.Close(); err != nil {
		t.Fatal(err)
	}
	g.hosts = append(g.hosts, "198.51.100.1:443")
	for range 3 {
		if got := g.serial(t, "192.0.2.1"); got != first {
			t.Errorf("another certificate, %s", got)
		}
	}
	if len(g.told) != 1 || !errors.Is(g.told[0], store.ErrClosed) {
		t.Errorf("told %v", g.told)
	}
	g.clock = g.clock.Add(certificateRetry)
	g.serial(t, "192.0.2.1")
	if len(g.told) != 2 {
		t.Errorf("after a while told %v", g.told)
	}
	g.clock = g.clock.Add(admit.Validity)
	if _, err := g.get(nil); !errors.Is(err, store.ErrClosed) {
		t.Errorf("past its end: %v", err)
	}
	if len(g.told) != 2 {
		t.Errorf("told what fails the handshake anyway: %v", g.told)
	}
}

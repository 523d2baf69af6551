package admit

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// clock is a time that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is a gateway with its network on disk.
type world struct {
	*Authority
	t       *testing.T
	clock   *clock
	dir     string
	store   *store.Store
	gateway *identity.Private
}

func newWorld(t *testing.T, prefixes ...string) *world {
	t.Helper()
	w := &world{
		t: t, dir: filepath.Join(t.TempDir(), "state"), gateway: newKey(t),
		clock: &clock{now: time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)},
	}
	w.store = openStore(t, w.dir)
	t.Cleanup(func() {
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	params := NetworkParams{
		Name: "Home", Gateway: w.gateway.Public(), GatewayName: "gw",
		Hosts: []string{"gw.example.net"},
	}
	for _, prefix := range prefixes {
		params.Prefixes = append(params.Prefixes, netip.MustParsePrefix(prefix))
	}
	var err error
	if w.Authority, err = CreateNetwork(w.store, w.config(), params); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) config() Config { return Config{Random: rand.Reader, Now: w.clock.Now} }

// restart closes the state and opens it again, as a new process would.
func (w *world) restart() {
	w.t.Helper()
	if err := w.store.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.store = openStore(w.t, w.dir)
	var err error
	if w.Authority, err = Open(w.store, w.config()); err != nil {
		w.t.Fatal(err)
	}
}

func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newKey(t *testing.T) *identity.Private {
	t.Helper()
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// invite makes an invite and returns what a joining node proves with it.
func (w *world) invite(o InviteOptions) Proof {
	w.t.Helper()
	if o.TTL == 0 {
		o.TTL = time.Hour
	}
	secret, _, err := w.Invite(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return Proof{Secret: secret, Binding: make([]byte, MinBinding)}
}

func request(t *testing.T, key *identity.Private, name string, proof Proof, routes ...string) JoinRequest {
	t.Helper()
	var prefixes []netip.Prefix
	for _, route := range routes {
		prefixes = append(prefixes, netip.MustParsePrefix(route))
	}
	r, err := NewJoinRequest(key, name, prefixes, proof)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// join admits a node by an invite of its own.
func (w *world) join(key *identity.Private, name string) Admission {
	w.t.Helper()
	proof := w.invite(InviteOptions{Uses: 1})
	admission, err := w.Redeem(request(w.t, key, name, proof), proof)
	if err != nil {
		w.t.Fatal(err)
	}
	return admission
}

func parseChain(t *testing.T, chain [][]byte) []*x509.Certificate {
	t.Helper()
	var parsed []*x509.Certificate
	for _, der := range chain {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, certificate)
	}
	return parsed
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v instead of %v", what, err, want)
	}
}

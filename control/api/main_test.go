package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aethertunnel/aethertunnel/tun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// book is a daemon that writes down what it was asked.
type book struct {
	mu    sync.Mutex
	calls []any
	down  func()
	err   error // what every verb that can fail returns
}

func (b *book) note(v any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, v)
}

func (b *book) noted() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

var (
	since      = time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC)
	someStatus = Status{
		Version: "v1.2.3", PID: 4711, Started: since, Role: "gateway", State: "listening", Name: "home",
		NodeID: "abcd", Network: "home-net",
		Prefixes:  []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16"), netip.MustParsePrefix("fd00:1::/48")},
		Device:    Device{Name: "aether0", MTU: 1380, Offloads: tun.Offloads{VirtioHeader: true, TCP: true}},
		Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.1")},
		Routes:    []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")},
		Granted:   []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
		Listen:    []string{"[::]:443"}, Advertise: []string{"192.0.2.1:443"},
		Peers: []Peer{{
			Name: "laptop", NodeID: "ef01", Connected: true, Since: &since, Remote: "198.51.100.7:1234",
			KeyExchange: "X25519MLKEM768", Path: "session", RTTMicros: 1500, MaxPacketBytes: 1380,
			Addresses: []string{"100.64.0.2"}, ReceivedPackets: 1, ReceivedBytes: 2, SentPackets: 3, SentBytes: 4,
		}},
		Drops: map[string]uint64{"no_route": 7}, Host: HostSelectors{Table: 1, Mark: 2, Priority: 3},
		Notices: []string{"docker drops forwarded packets"},
	}
	someInvite = Invite{Line: "aether://x", Expires: since, Uses: 2, Addresses: []string{"192.0.2.1:443"}}
	someNodes  = []Node{{
		Name: "laptop", NodeID: "ef01", Role: "member", Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.2")},
		Connected: true, Created: since, LastSeen: &since,
	}}
	someRoutes = []Route{{Node: "laptop", Prefix: netip.MustParsePrefix("10.1.0.0/16"), Offered: true}}
)

func (b *book) Status() Status { return someStatus }

func (b *book) Down() {
	b.note("down")
	if b.down != nil {
		b.down()
	}
}

func (b *book) Invite(_ context.Context, r InviteRequest) (Invite, error) {
	b.note(r)
	return someInvite, b.err
}

func (b *book) Nodes(context.Context) ([]Node, error) {
	b.note("nodes")
	return someNodes, b.err
}

func (b *book) Revoke(_ context.Context, name string) error {
	b.note(RevokeRequest{name})
	return b.err
}

func (b *book) Routes(context.Context) ([]Route, error) {
	b.note("routes")
	return someRoutes, b.err
}

func (b *book) Approve(_ context.Context, node string, prefix netip.Prefix) error {
	b.note(ApproveRequest{node, prefix})
	return b.err
}

// serve runs a server on the socket of a state directory until the test ends, or until stop, which returns what Run
// did.
func serve(t *testing.T, state string, d Daemon) (stop func() error) {
	t.Helper()
	s, err := Listen(SocketPath(state), d, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return stop
}

// raw is an HTTP client on the socket of a state directory, for what Client would never send.
func raw(t *testing.T, state string) *http.Client {
	t.Helper()
	return NewClient(state).http
}

var errRefused = errors.New("node laptop is not known: `aetherd nodes` lists them")

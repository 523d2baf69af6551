package control

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/crypto/token"
	"github.com/aethertunnel/aethertunnel/dataplane"
)

func TestMemberGetsAddressesAndRoutes(t *testing.T) {
	lan := netip.MustParsePrefix("192.168.7.0/24")
	g := newTestGateway(t, lan)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	want := HostPlan{
		Addresses: prefixes("10.77.0.2/32", "fd77::2/128"),
		Routes:    prefixes("10.77.0.0/24", "fd77::/64", "192.168.7.0/24"),
		Tunnel:    prefixes("10.77.0.0/24", "fd77::/64"),
		Granted:   nil,
	}
	got := m.host.await(t, "first plan", has(lan))
	got.Granted = nil // an empty list and none are the same
	if !reflect.DeepEqual(got, want) {
		t.Errorf("host plan\n got %+v\nwant %+v", got, want)
	}
	s := m.member.Status()
	if s.Link == nil || s.Link.Group != "X25519MLKEM768" || s.GatewayName != "router" || s.Membership.Name != "laptop" {
		t.Errorf("gateway %q, name %q, link %+v", s.GatewayName, s.Membership.Name, s.Link)
	}
	gatewayPlan := g.host.await(t, "gateway's plan", func(p HostPlan) bool { return len(p.Granted) == 1 })
	if !slices.Equal(gatewayPlan.Addresses, prefixes("10.77.0.1/32", "fd77::1/128")) || gatewayPlan.Granted[0] != lan {
		t.Errorf("gateway's plan %+v", gatewayPlan)
	}
	peers := g.data.peers()
	wantPeer := dataplane.Peer{ID: dataplane.PeerID(m.key.ID()), Prefixes: prefixes("10.77.0.2/32", "fd77::2/128")}
	if len(peers) != 1 || !reflect.DeepEqual(peers[0], wantPeer) {
		t.Errorf("gateway's dataplane peers %+v", peers)
	}
}

func TestRevokedNodeIsCutAndStaysOut(t *testing.T) {
	g := newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	links := g.gateway.snapshotLinks()
	if err := g.gateway.Revoke("laptop"); err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.conn.Context().Err() == nil {
			t.Error("the session outlives its revocation")
		}
	}
	select {
	case err := <-m.ended:
		m.ended <- err
		if !errors.Is(err, ErrRefused) {
			t.Errorf("member ended with %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("the session of a revoked node goes on")
	}
	if _, err := g.join(t, m.key, g.invite(t, admit.InviteOptions{}), "laptop"); err == nil ||
		!strings.Contains(err.Error(), "revoked") {
		t.Errorf("joined again with the same keys: %v", err)
	}
	if peers := g.data.peers(); len(peers) != 0 {
		g.host.await(t, "snapshot without the node", func(HostPlan) bool { return len(g.data.peers()) == 0 })
	}
}

func TestRouteBehindAMemberNeedsApproval(t *testing.T) {
	office := netip.MustParsePrefix("192.168.7.0/24")
	g := newTestGateway(t)
	router := g.newTestMember(t, "office", admit.InviteOptions{}, office)
	laptop := g.newTestMember(t, "laptop", admit.InviteOptions{})
	g.events.await(t, EventRoutes, 1) // offered
	laptop.host.await(t, "no route without approval", hasNot(office))
	if err := g.gateway.Approve("office", office); err != nil {
		t.Fatal(err)
	}
	laptop.host.await(t, "route after approval", has(office))
	plan := router.host.await(t, "the router opens its LAN", func(p HostPlan) bool { return slices.Contains(p.Granted, office) })
	if slices.Contains(plan.Routes, office) {
		t.Errorf("the router sends its own LAN into the tunnel: %+v", plan)
	}
	g.host.await(t, "the gateway's own route", has(office))
	router.stop()
	laptop.host.await(t, "route withdrawn with its router", hasNot(office))
}

func TestInviteWithRoutesNeedsNoApproval(t *testing.T) {
	office := netip.MustParsePrefix("192.168.7.0/24")
	g := newTestGateway(t)
	laptop := g.newTestMember(t, "laptop", admit.InviteOptions{})
	g.newTestMember(t, "office", admit.InviteOptions{Routes: []netip.Prefix{office}}, office)
	laptop.host.await(t, "route at once", has(office))
}

func TestMemberComesBackAfterAGatewayRestart(t *testing.T) {
	g := newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	g.stop()
	m.events.await(t, EventDisconnected, 1)
	g.start(t, g.address)
	m.events.await(t, EventConnected, 2)
	if s := m.member.Status(); s.Link == nil || !slices.Equal(s.Membership.Addresses,
		[]netip.Addr{netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")}) {
		t.Errorf("after the restart: %+v", s)
	}
}

func TestMemberLearnsNewAddresses(t *testing.T) {
	g := newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	g.gateway.SetAddresses([]string{"vpn.example:443", g.address})
	var got []string
	await(t, "the new address", func() bool {
		got = m.member.Status().Membership.GatewayAddresses
		return slices.Contains(got, "vpn.example:443")
	})
	if got[0] != "vpn.example:443" || !slices.Contains(got, g.address) {
		t.Errorf("addresses %v", got)
	}
}

func TestSecondSessionOfANodeReplacesTheFirst(t *testing.T) {
	g := newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	twin := NewMember(MemberConfig{
		Key: m.key, Membership: m.member.cfg.Membership, Save: m.member.cfg.Save, Transport: newTransport(t),
		Resolver: fakeResolver{}, Dataplane: &fakeDataplane{}, Host: newFakeHost(), Observe: newEvents().add, Now: time.Now,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- twin.Run(ctx) }()
	m.events.await(t, EventDisconnected, 1)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestJoinRefusals(t *testing.T) {
	g, other := newTestGateway(t), newTestGateway(t)
	used := g.invite(t, admit.InviteOptions{})
	if _, err := g.join(t, newKey(t), used, "first"); err != nil {
		t.Fatal(err)
	}
	wrongGateway := other.invite(t, admit.InviteOptions{})
	wrongGateway.Addresses = []string{g.address}
	foreign := other.invite(t, admit.InviteOptions{})
	foreign.Gateway, foreign.Addresses = g.key.ID(), []string{g.address}
	nobody := g.invite(t, admit.InviteOptions{})
	nobody.Addresses = []string{"no.such.host:443"}
	for name, c := range map[string]struct {
		invite token.Invite
		want   string
	}{
		"used twice":    {used, "invite has been used already"},
		"wrong gateway": {wrongGateway, admit.ErrWrongGateway.Error()},
		"foreign":       {foreign, admit.ErrInviteUnknown.Error()},
		"unknown host":  {nobody, "look up gateway no.such.host"},
	} {
		if _, err := g.join(t, newKey(t), c.invite, "x"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestManyJoinAtOnce(t *testing.T) {
	g := newTestGateway(t)
	invite := g.invite(t, admit.InviteOptions{Uses: 4})
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		key := newKey(t)
		wg.Go(func() { _, errs[i] = g.join(t, key, invite, "node") })
	}
	wg.Wait()
	joined := 0
	for _, err := range errs {
		if err == nil {
			joined++
		}
	}
	nodes, err := g.gateway.Nodes()
	if err != nil || joined != 4 || len(nodes) != 5 {
		t.Errorf("%d joined, %d nodes, %v: %v", joined, len(nodes), err, errs)
	}
}

func TestStrangerSeesAWebSite(t *testing.T) {
	g := newTestGateway(t)
	conn, err := newTransport(t).Dial(t.Context(), mustUDP(t, g.address),
		masque.TLSConfig(&tls.Config{InsecureSkipVerify: true}, masque.RequireHybrid), masque.QUICConfig(1320))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	client := masque.NewHTTP3Conn(conn)
	for path, want := range map[string]int{"/": 200, "/nothing": 404, joinPath: 404} {
		status, body := fetch(t, client, "https://"+g.address+path)
		if status != want || want == 200 && !strings.Contains(body, "<html") {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	_, _, err = masque.DialHTTP3(t.Context(), client, masque.Request{Authority: g.address})
	var refused *masque.StatusError
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusNotFound {
		t.Errorf("CONNECT-IP without proof: %v", err)
	}
	_, _, err = masque.DialHTTP3(t.Context(), client, masque.Request{
		Authority: g.address, Header: http.Header{"Authorization": {"Bearer nonsense"}},
	})
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusNotFound {
		t.Errorf("CONNECT-IP with a bad token: %v", err)
	}
}

func fetch(t *testing.T, client *http3.ClientConn, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestHostThatRefusesEndsTheMember(t *testing.T) {
	g := newTestGateway(t)
	key := newKey(t)
	membership, err := g.join(t, key, g.invite(t, admit.InviteOptions{}), "laptop")
	if err != nil {
		t.Fatal(err)
	}
	host := newFakeHost()
	host.refuse = errors.New("prefix is taken")
	m := NewMember(MemberConfig{
		Key: key, Membership: membership, Transport: newTransport(t), Resolver: fakeResolver{},
		Dataplane: &fakeDataplane{}, Host: host, Observe: newEvents().add, Now: time.Now,
	})
	if err := m.Run(t.Context()); !errors.Is(err, host.refuse) {
		t.Errorf("ended with %v", err)
	}
}

// Neighbouring prefixes are one range in a ROUTE_ADVERTISEMENT; both ends must still see what the operators wrote.
func TestNeighbouringRoutesStayApart(t *testing.T) {
	both := prefixes("192.168.0.0/24", "192.168.1.0/24")
	g := newTestGateway(t)
	laptop := g.newTestMember(t, "laptop", admit.InviteOptions{})
	office := g.newTestMember(t, "office", admit.InviteOptions{Routes: both}, both...)
	for _, p := range both {
		laptop.host.await(t, "route at once", has(p))
		office.host.await(t, "LAN opened", func(plan HostPlan) bool { return slices.Contains(plan.Granted, p) })
	}
}

func TestRenewedCertificateReachesTheMember(t *testing.T) {
	g := newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	before := m.member.Status().Membership.Chain
	m.stop()
	g.clock.Store(int64(admit.Validity - admit.RenewBefore + time.Hour)) // the certificate nears its end
	g.run(t, m, m.member.cfg.Membership)
	m.events.await(t, EventConnected, 2)
	m.awaitNewChain(t, "after the renewal", before)
}

// A host that changes under a running daemon costs a notice, not the tunnel.
func TestLaterHostTroubleIsANotice(t *testing.T) {
	g := newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	m.host.mu.Lock()
	m.host.refuse = errors.New("somebody took the prefix")
	m.host.mu.Unlock()
	g.host.mu.Lock()
	g.host.refuse = errors.New("somebody took the prefix")
	g.host.mu.Unlock()
	other := g.newTestMember(t, "other", admit.InviteOptions{})
	if err := g.gateway.Approve("other", netip.MustParsePrefix("192.168.9.0/24")); err != nil {
		t.Fatal(err)
	}
	g.events.await(t, EventNotice, 1)
	if s := other.member.Status(); s.Link == nil {
		t.Errorf("not connected: %+v", s.Unreachable)
	}
	if !slices.ContainsFunc(g.gateway.Status().Notices, func(n string) bool { return strings.Contains(n, "somebody took") }) {
		t.Errorf("gateway's notices: %q", g.gateway.Status().Notices)
	}
}

// A machine that answers at the gateway's address with another certificate does not end a member that has joined.
func TestWrongAnswerDoesNotEndAMember(t *testing.T) {
	g, other := newTestGateway(t), newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	m.stop()
	membership := m.member.cfg.Membership
	membership.GatewayAddresses = []string{other.address}
	lost := NewMember(MemberConfig{
		Key: m.key, Membership: membership, Save: m.member.cfg.Save, Transport: newTransport(t),
		Resolver: fakeResolver{}, Dataplane: &fakeDataplane{}, Host: newFakeHost(), Observe: m.events.add, Now: time.Now,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- lost.Run(ctx) }()
	m.events.await(t, EventDialFailed, 1)
	if !strings.Contains(lost.Status().Unreachable, "another gateway answers there") {
		t.Errorf("status says %q", lost.Status().Unreachable)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

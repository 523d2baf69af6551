package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
)

// awaitNewChain waits until the member has another certificate than before.
func (m *testMember) awaitNewChain(t *testing.T, where string, before [][]byte) {
	t.Helper()
	await(t, "a new certificate "+where, func() bool {
		return !slices.Equal(m.member.Status().Membership.Chain[0], before[0])
	})
}

// News that never pauses must not put off what the gateway has to do: a herd of members that comes back is such news.
func TestSteadyNewsPutsNothingOff(t *testing.T) {
	authority := newTestGateway(t).authority
	synctest.Test(t, func(t *testing.T) {
		host := newFakeHost()
		g, err := NewGateway(GatewayConfig{
			Authority: authority, Dataplane: &fakeDataplane{}, Host: host, Observe: newEvents().add, Now: time.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		time.Sleep(time.Second) // everything of the start is over
		<-host.applied
		for range 20 {
			g.changed()
			time.Sleep(settle / 2)
		}
		select {
		case <-host.applied:
		default:
			t.Error("nothing was looked at")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A revocation that falls between the authorization of a session and its begin has not seen the session.
func TestSessionOfARevokedNodeIsCut(t *testing.T) {
	g := newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	if _, err := g.authority.Revoke("laptop"); err != nil {
		t.Fatal(err)
	}
	g.gateway.changed()
	select {
	case err := <-m.ended:
		m.ended <- err
		if !errors.Is(err, ErrRefused) {
			t.Errorf("member ended with %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("the session of a revoked node goes on")
	}
}

// A session may last longer than a certificate.
func TestCertificateIsRenewedDuringASession(t *testing.T) {
	g := newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	before := m.member.Status().Membership.Chain
	g.clock.Store(int64(admit.Validity - admit.RenewBefore + time.Hour))
	g.gateway.Refresh()
	m.awaitNewChain(t, "in the session", before)
	if n := m.events.count(EventConnected); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// The gateway renews once; what was lost on its way to the member is sent again.
func TestLostRenewalIsSentAgain(t *testing.T) {
	g := newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	before := m.member.Status().Membership.Chain
	m.stop()
	g.clock.Store(int64(admit.Validity - admit.RenewBefore + time.Hour))
	if _, err := g.authority.Renew(m.key.ID()); err != nil {
		t.Fatal(err)
	}
	g.run(t, m, m.member.cfg.Membership)
	m.events.await(t, EventConnected, 2)
	m.awaitNewChain(t, "in the next session", before)
}

// A gateway whose clock is far ahead must not take a member's good certificate from it.
func TestRenewalOfAWrongClockIsRefused(t *testing.T) {
	g := newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	m.stop()
	before := m.member.cfg.Membership.Chain
	ahead := admit.Validity - admit.RenewBefore + time.Hour
	g.clock.Store(int64(ahead))
	later := NewMember(MemberConfig{
		Key: m.key, Membership: m.member.cfg.Membership, Save: m.member.cfg.Save, Transport: newTransport(t),
		Resolver: fakeResolver{}, Dataplane: &fakeDataplane{}, Host: newFakeHost(), Observe: m.events.add, Now: time.Now,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- later.Run(ctx) }()
	m.events.await(t, EventConnected, 2)
	m.events.await(t, EventNotice, 1)
	if !slices.Equal(later.Status().Membership.Chain[0], before[0]) {
		t.Error("a certificate that is not valid yet has replaced a good one")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A router that comes back without --advertise-routes must not go on attracting its LAN's packets.
func TestOfferEndsWithTheOption(t *testing.T) {
	office := netip.MustParsePrefix("192.168.7.0/24")
	g := newTestGateway(t)
	laptop := g.newTestMember(t, "laptop", admit.InviteOptions{})
	router := g.newTestMember(t, "office", admit.InviteOptions{Routes: []netip.Prefix{office}}, office)
	laptop.host.await(t, "route at once", has(office))
	router.stop()
	laptop.host.await(t, "route withdrawn with its router", hasNot(office))
	g.run(t, router, router.member.cfg.Membership)
	router.events.await(t, EventConnected, 2)
	await(t, "the end of the offer", func() bool {
		routes, err := g.gateway.Routes()
		if err != nil {
			t.Fatal(err)
		}
		return len(routes) == 1 && routes[0].Offered.IsZero() && !routes[0].Approved.IsZero()
	})
	laptop.host.await(t, "no route", hasNot(office))
}

// link makes a session of the member's node without a running member.
func (g *testGateway) link(t *testing.T, m *testMember) *memberLink {
	t.Helper()
	dialer := NewMember(MemberConfig{
		Key: m.key, Membership: m.member.cfg.Membership, Transport: newTransport(t), Resolver: fakeResolver{}, Now: g.now,
	})
	l, err := dialer.dial(t.Context(), m.member.cfg.Membership)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.close(0, "") })
	return l
}

// closedBy waits for the end of a connection and returns the code that ended it.
func closedBy(t *testing.T, c *quic.Conn) quic.ApplicationErrorCode {
	t.Helper()
	select {
	case <-c.Context().Done():
	case <-time.After(deadline):
		t.Fatal("the connection goes on")
	}
	closed, ok := errors.AsType[*quic.ApplicationError](context.Cause(c.Context()))
	if !ok {
		t.Fatalf("ended with %v", context.Cause(c.Context()))
	}
	return closed.ErrorCode
}

// Each change of an offer is written to the gateway's disk.
func TestFloodOfOffersEndsTheSession(t *testing.T) {
	g := newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	m.stop()
	l := g.link(t, m)
	done := make(chan error, 1)
	go func() { done <- l.session.Run(l.ctx, func(masque.Event) {}) }()
	for i, end := 0, time.Now().Add(deadline); l.conn.Context().Err() == nil && time.Now().Before(end); i++ {
		message, err := mapMessage{Offer: prefixes(fmt.Sprintf("192.168.%d.0/24", i%200))}.encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := l.session.SendPrivate(masque.CapsuleMap, message); err != nil && !errors.Is(err, masque.ErrClosed) &&
			!errors.Is(err, masque.ErrBacklog) {
			t.Fatal(err)
		}
	}
	if code := closedBy(t, l.conn); code != masque.CodeRestart {
		t.Errorf("closed with %#x", code)
	}
	<-done
}

// A session whose begin the ending loop has not seen is told to come back like the others.
func TestSessionsThatBeginAtTheEndAreClosed(t *testing.T) {
	g := newTestGateway(t)
	m := g.newTestMember(t, "laptop", admit.InviteOptions{})
	m.stop()
	for range 8 { // the loop chooses by chance between its end and the message
		ending, err := NewGateway(GatewayConfig{
			Authority: g.authority, Dataplane: &fakeDataplane{}, Host: newFakeHost(), Observe: newEvents().add, Now: g.now,
		})
		if err != nil {
			t.Fatal(err)
		}
		inner := g.link(t, m)
		l := &gatewayLink{link: inner.link, node: ending.self}
		ending.messages <- gatewayMessage{link: l, begun: true}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := ending.Run(ctx); err != nil {
			t.Fatal(err)
		}
		code := closedBy(t, inner.conn)
		if code != quic.ApplicationErrorCode(http3.ErrCodeNoError) && code != CodeRevoked {
			t.Errorf("closed with %#x", code)
		}
	}
}

func TestManyRoutesCostOnlyTheirWords(t *testing.T) {
	many := func(n int, format string) []netip.Prefix {
		out := make([]netip.Prefix, n)
		for i := range out {
			out[i] = netip.MustParsePrefix(fmt.Sprintf(format, i/256, i%256))
		}
		return out
	}
	long := many(maxMapEntries, "fd00:1111:2222:3333:4444:5555:66%02x:77%02x/128")
	for name, m := range map[string]mapMessage{
		"many": {Node: "office", Granted: prefixes("192.168.7.0/24"), Routes: many(maxMapEntries+1, "10.%d.%d.0/24")},
		"long": {Node: "office", Granted: long[:64], Routes: long, Chain: [][]byte{make([]byte, 1<<11)}},
	} {
		encoded, err := m.encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := decodeMapMessage(encoded)
		if err != nil {
			t.Fatalf("%s: the member would refuse it: %v", name, err)
		}
		if len(got.Routes) != 0 || !slices.Equal(got.Granted, m.Granted) || got.Node != m.Node {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestBearerToken(t *testing.T) {
	for header, want := range map[string]string{
		"Bearer abc": "abc", "bearer abc": "abc", "BEARER abc": "abc", "Basic abc": "", "Bearer": "", "": "",
	} {
		got, ok := bearerToken(&http.Request{Header: http.Header{"Authorization": {header}}})
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: got %q, %v", header, got, ok)
		}
	}
}

// Peers' words must not reach a terminal as commands, not even as 8-bit ones.
func TestPrintable(t *testing.T) {
	hostile := "a\x1b[2Jb\u009b2Jc\u202ed\ne\xff"
	if got := printable([]byte(hostile)); got != "a [2Jb 2Jc d e?" {
		t.Errorf("got %q", got)
	}
	line := Event{Kind: EventNotice, Text: hostile}.String()
	if strings.ContainsAny(line, "\x1b\u009b\u202e\n") {
		t.Errorf("got %q", line)
	}
}

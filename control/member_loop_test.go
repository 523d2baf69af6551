package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/aethertunnel/aethertunnel/control/admit"
)

// idleMember is a member whose loop does not run, with a link that is current and lasts since long ago.
func idleMember(t *testing.T) (*Member, *memberLink, *events) {
	t.Helper()
	seen := newEvents()
	m := NewMember(MemberConfig{Observe: seen.add, Now: time.Now})
	m.retry = time.NewTimer(time.Hour)
	t.Cleanup(func() { m.retry.Stop() })
	l := &memberLink{nudges: make(chan struct{}, 1), adopted: time.Now().Add(-time.Hour)}
	m.current = l
	return m, l, seen
}

func replaced() error { return &quic.ApplicationError{Remote: true, ErrorCode: CodeReplaced} }

// The end of a session that a newer one has taken the place of is no failure to back off from.
func TestEndOfAnOlderSessionCostsNoRetry(t *testing.T) {
	m, _, _ := idleMember(t)
	if err := m.ended(&memberLink{}, errors.New("replaced")); err != nil || m.backoff.attempts != 0 {
		t.Errorf("%d attempts, %v", m.backoff.attempts, err)
	}
}

func TestSessionsThatEndAtOnceAreSpacedOut(t *testing.T) {
	m, l, _ := idleMember(t)
	for n := 1; n <= 3; n++ {
		l.adopted = time.Now()
		m.current = l
		if err := m.ended(l, errors.New("cut")); err != nil || m.backoff.attempts != n {
			t.Fatalf("after %d short sessions: %d attempts, %v", n, m.backoff.attempts, err)
		}
	}
	l.adopted = time.Now().Add(-lastRetry)
	m.current = l
	if err := m.ended(l, errors.New("cut")); err != nil || m.backoff.attempts != 1 {
		t.Errorf("after a long session: %d attempts, %v", m.backoff.attempts, err)
	}
}

// An attempt that was given up here may have become the newest session there.
func TestOwnAttemptIsNotAnotherMachine(t *testing.T) {
	for name, giveUp := range map[string]func(*Member) error{
		"dial given up": func(m *Member) error {
			m.dialing = func() {}
			return m.dialed(t.Context(), nil, context.Canceled)
		},
		"session given up": func(m *Member) error {
			m.pending = &memberLink{}
			return m.ended(m.pending, errors.New("late"))
		},
		"dialing": func(m *Member) error { m.dialing = func() {}; return nil },
	} {
		m, l, seen := idleMember(t)
		if err := giveUp(m); err != nil {
			t.Fatal(err)
		}
		if err := m.ended(l, replaced()); err != nil || seen.count(EventNotice) != 0 {
			t.Errorf("%s: %v, %v", name, err, seen.list)
		}
	}
	m, l, seen := idleMember(t)
	if err := m.ended(l, replaced()); err != nil || seen.count(EventNotice) != 1 || m.Status().Unreachable == "" {
		t.Errorf("another machine: %v, %v, status %q", err, seen.list, m.Status().Unreachable)
	}
}

// A clock that is wrong goes on, which makes a new text of every attempt, but no news.
func TestAWrongClockIsToldOnce(t *testing.T) {
	m, _, seen := idleMember(t)
	m.current = nil
	begin, end := time.Now().Add(time.Hour), time.Now().Add(24*time.Hour)
	for n := range 5 {
		now := begin.Add(-time.Minute + time.Duration(n)*2*time.Second)
		m.unreachable(failures{
			errors.New("192.0.2.2:443: no answer"),
			fmt.Errorf("192.0.2.1:443: %w", &admit.ValidityError{Now: now, NotBefore: begin, NotAfter: end}),
		})
		if clock := now.UTC().Format(time.RFC3339); !strings.Contains(m.Status().Unreachable, clock) {
			t.Errorf("status does not say %s: %q", clock, m.Status().Unreachable)
		}
	}
	if got := seen.count(EventDialFailed); got != 1 {
		t.Errorf("told %d times: %v", got, seen.list)
	}
	m.unreachable(&admit.ValidityError{Now: end.Add(time.Hour), NotBefore: begin, NotAfter: end})
	m.unreachable(errors.New("192.0.2.1:443: no answer"))
	if got := seen.count(EventDialFailed); got != 3 {
		t.Errorf("other reasons were not told: %v", seen.list)
	}
	m.told = time.Now().Add(-2 * repeatPeriod)
	m.unreachable(errors.New("192.0.2.1:443: no answer"))
	if got := seen.count(EventDialFailed); got != 4 {
		t.Errorf("not told once in a while: %v", seen.list)
	}
}

// What is told to go through the tunnel is what the host routes there: not the LANs that it is connected to.
func TestToldRoutesAreThoseOfTheHost(t *testing.T) {
	m, _, seen := idleMember(t)
	host := newFakeHost()
	m.cfg.Host = host
	all := prefixes("10.7.0.0/16", "10.8.0.0/16")
	plan := HostPlan{Addresses: prefixes("10.77.0.2/32"), Routes: all}
	for n, c := range []struct{ near, want []netip.Prefix }{{all[:1], all[1:]}, {nil, all}, {nil, all}} {
		host.near = c.near
		if err := m.applyHost(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		told := slices.DeleteFunc(slices.Clone(seen.list), func(e Event) bool { return e.Kind != EventRoutes })
		if len(told) != min(n+1, 2) || !slices.Equal(told[len(told)-1].Prefixes, c.want) {
			t.Errorf("near %v: told %v", c.near, told)
		}
		if got := m.Status().Routes; !slices.Equal(got, c.want) {
			t.Errorf("near %v: status says %v", c.near, got)
		}
	}
}

func TestAnswerDoesNotEndADial(t *testing.T) {
	m, l, _ := idleMember(t)
	l.suspect = true
	m.dialing = func() { t.Error("the dial was given up, though the gateway may have begun its session") }
	if err := m.handle(t.Context(), memberMessage{alive: true, link: l}); err != nil || l.suspect {
		t.Errorf("suspect %v, %v", l.suspect, err)
	}
}

func TestNewNetworkWhileTheGatewayIsSilentIsTriedAtOnce(t *testing.T) {
	m, l, _ := idleMember(t)
	l.suspect = true
	m.networkChanged()
	select {
	case <-m.retry.C:
	case <-time.After(deadline):
		t.Error("waits for the next retry")
	}
}

// A link that is ready when the loop ends is not left to time out at the gateway.
func TestLinkMadeAtTheEndIsClosed(t *testing.T) {
	g := newTestGateway(t)
	node := g.newTestMember(t, "laptop", admit.InviteOptions{})
	node.stop()
	for range 8 { // the loop chooses by chance between its end and the message
		m := NewMember(node.member.cfg)
		l := g.link(t, node)
		m.dialing = func() {}
		m.messages <- memberMessage{dialed: true, link: l}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.Run(ctx); err != nil {
			t.Fatal(err)
		}
		closedBy(t, l.conn)
	}
}

func TestUnique(t *testing.T) {
	got := unique(prefixes("10.0.0.0/8", "fd00::/8", "10.0.0.0/8", "10.0.0.0/16"))
	if !slices.Equal(got, prefixes("10.0.0.0/8", "fd00::/8", "10.0.0.0/16")) {
		t.Errorf("got %v", got)
	}
}

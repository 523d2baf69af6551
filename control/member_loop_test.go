package control

import (
	"context"
	"errors"
	"slices"
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

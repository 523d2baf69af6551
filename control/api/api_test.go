package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestEveryVerbCrosses(t *testing.T) {
	state := t.TempDir()
	var b book
	serve(t, state, &b)
	c, ctx := NewClient(state), t.Context()
	prefix := netip.MustParsePrefix("10.1.0.0/16")
	invite := InviteRequest{Uses: 2, TTLSeconds: 60, Routes: []netip.Prefix{prefix}, Stock: true}
	none := struct{}{}
	for _, verb := range []struct {
		name   string
		ask    func() (any, error)
		answer any
		call   any // what the daemon saw; nil if it writes nothing down
	}{
		{"status", func() (any, error) { return c.Status(ctx) }, someStatus, nil},
		{"invite", func() (any, error) { return c.Invite(ctx, invite) }, someInvite, invite},
		{"nodes", func() (any, error) { return c.Nodes(ctx) }, someNodes, "nodes"},
		{"revoke", func() (any, error) { return none, c.Revoke(ctx, "laptop") }, none, RevokeRequest{"laptop"}},
		{"routes", func() (any, error) { return c.Routes(ctx) }, someRoutes, "routes"},
		{
			"approve", func() (any, error) { return none, c.Approve(ctx, "laptop", prefix) }, none,
			ApproveRequest{"laptop", prefix},
		},
		{"down", func() (any, error) { return none, c.Down(ctx) }, none, "down"},
	} {
		before := len(b.noted())
		got, err := verb.ask()
		if err != nil {
			t.Errorf("%s: %v", verb.name, err)
			continue
		}
		if !reflect.DeepEqual(got, verb.answer) {
			t.Errorf("%s: got %+v, want %+v", verb.name, got, verb.answer)
		}
		calls := b.noted()[before:]
		if verb.call != nil && (len(calls) != 1 || !reflect.DeepEqual(calls[0], verb.call)) {
			t.Errorf("%s: the daemon saw %+v, want %+v", verb.name, calls, verb.call)
		}
	}
}

func TestRefusalReachesTheCallerInItsWords(t *testing.T) {
	state := t.TempDir()
	serve(t, state, &book{err: errRefused})
	c, ctx := NewClient(state), t.Context()
	for name, ask := range map[string]func() error{
		"invite":  func() error { _, err := c.Invite(ctx, InviteRequest{}); return err },
		"nodes":   func() error { _, err := c.Nodes(ctx); return err },
		"revoke":  func() error { return c.Revoke(ctx, "laptop") },
		"routes":  func() error { _, err := c.Routes(ctx); return err },
		"approve": func() error { return c.Approve(ctx, "laptop", netip.MustParsePrefix("10.0.0.0/8")) },
	} {
		if err := ask(); err == nil || err.Error() != errRefused.Error() {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestErrorBodies(t *testing.T) {
	state := t.TempDir()
	var b book
	serve(t, state, &b)
	long := `{"name":"` + strings.Repeat("x", maxBodyBytes) + `"}`
	spaced := `{"name":"a"}` + strings.Repeat(" ", maxBodyBytes)
	for name, q := range map[string]struct {
		method, path, body string
		status             int
		want               string // part of the error
	}{
		"unknown field":   {"POST", "/v1/nodes/revoke", `{"name":"a","nmae":"b"}`, 400, `unknown field "nmae"`},
		"no JSON":         {"POST", "/v1/nodes/revoke", `name=a`, 400, "malformed request"},
		"nothing":         {"POST", "/v1/nodes/revoke", ``, 400, "EOF"},
		"two values":      {"POST", "/v1/nodes/revoke", `{"name":"a"}{"name":"b"}`, 400, "more than one JSON value"},
		"wrong kind":      {"POST", "/v1/invites", `{"uses":"many"}`, 400, "cannot unmarshal string"},
		"bad prefix":      {"POST", "/v1/routes/approve", `{"node":"a","prefix":"10.0.0.0/99"}`, 400, "10.0.0.0/99"},
		"oversized":       {"POST", "/v1/nodes/revoke", long, 413, "too large"},
		"oversized space": {"POST", "/v1/nodes/revoke", spaced, 413, "too large"},
		"unknown path":    {"GET", "/v1/nonsense", ``, 404, "does not know GET /v1/nonsense"},
		"wrong method":    {"GET", "/v1/down", ``, 404, "does not know GET /v1/down"},
	} {
		url, content := "http://aetherd"+q.path, strings.NewReader(q.body)
		request, err := http.NewRequestWithContext(t.Context(), q.method, url, content)
		if err != nil {
			t.Fatal(err)
		}
		response, err := raw(t, state).Do(request)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		answer, err := io.ReadAll(response.Body)
		response.Body.Close()
		var body errorBody
		if err != nil || json.Unmarshal(answer, &body) != nil {
			t.Errorf("%s: no JSON error: %v, %q", name, err, answer)
		}
		said, status := body.Error, response.StatusCode
		if status != q.status || !strings.Contains(said, q.want) || strings.Contains(said, "\n") {
			t.Errorf("%s: got %d, %q; want %d, %q in one line", name, status, said, q.status, q.want)
		}
	}
	if calls := b.noted(); len(calls) != 0 {
		t.Errorf("malformed requests reached the daemon: %v", calls)
	}
}

// TestDownIsAnswered: the daemon ends because of the request, and the caller still gets its answer.
func TestDownIsAnswered(t *testing.T) {
	state := t.TempDir()
	ended := make(chan struct{})
	b := &book{}
	stop := serve(t, state, b)
	b.down = func() { go func() { defer close(ended); _ = stop() }() } // as the daemon does: its context ends
	if err := NewClient(state).Down(t.Context()); err != nil {
		t.Errorf("Down: %v", err)
	}
	<-ended
	if err := NewClient(state).Down(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after the end: got %v", err)
	}
}

func TestClientGivesUpWithItsContext(t *testing.T) {
	state := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	serve(t, state, &book{})
	if _, err := NewClient(state).Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestForeignAnswers: what answers on the socket need not be our daemon.
func TestForeignAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"no JSON": {func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "hello")
		}, "malformed answer"},
		"error, no JSON": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no", http.StatusTeapot)
		}, "418"},
		"empty error": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, `{"error":""}`)
		}, "502"},
	} {
		state := t.TempDir()
		l, err := listenPrivate(SocketPath(state))
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: c.answer, ReadHeaderTimeout: time.Minute}
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		if _, err := NewClient(state).Status(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		s.Close()
		<-done
	}
}

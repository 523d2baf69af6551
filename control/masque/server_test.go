package masque

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// rawRequest sends any request over HTTP/3 and returns status, header and content.
func rawRequest(
	t *testing.T, conn *http3.ClientConn, method, authority, path, protocol string, header http.Header,
) (int, http.Header, string) {
	t.Helper()
	u, err := url.Parse("https://" + authority + path)
	if err != nil {
		t.Fatal(err)
	}
	u.RawPath = strings.Split(path, "?")[0]
	r := (&http.Request{Method: method, Host: authority, URL: u, Header: header}).WithContext(t.Context())
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Proto = protocol
	str, err := conn.OpenRequestStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer str.CancelRead(0)
	if err := str.SendRequestHeader(r); err != nil {
		t.Fatal(err)
	}
	rsp, err := str.ReadResponse()
	if err != nil {
		t.Fatal(err)
	}
	if rsp.StatusCode == http.StatusOK && method == http.MethodConnect {
		if err := str.Close(); err != nil {
			t.Error(err)
		}
		return rsp.StatusCode, rsp.Header, ""
	}
	body, err := io.ReadAll(rsp.Body)
	if err != nil {
		t.Error(err)
	}
	return rsp.StatusCode, rsp.Header, string(body)
}

func TestHandler(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	var refused atomic.Int64
	g := &gateway{}
	handler := newGateway(t, HandlerConfig[string]{
		Authorities: []string{"gateway.example", "192.0.2.1:8443"},
		Fallback: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, "a web site")
		}),
		OnRefused: func(_ *http.Request, status int, err error) {
			if status < 400 || err == nil {
				t.Errorf("refused with %d, %v", status, err)
			}
			refused.Add(1)
		},
	}, g)
	addr := serveHTTP3(t, NewServer(handler), serverTLS)
	quicConn, err := dialQUIC(t, addr, clientTLS, PreferredPacketSize)
	if err != nil {
		t.Fatal(err)
	}
	conn := NewHTTP3Conn(quicConn)
	const host = "gateway.example"
	for name, c := range map[string]struct {
		method, authority, path, protocol string
		header                            http.Header
		status                            int
		site                              bool
	}{
		// RFC 9484 section 4.5; Capsule-Protocol is not demanded.
		"accepted":           {"CONNECT", host, Path, Protocol, bearer, 200, false},
		"percent-encoded":    {"CONNECT", host, pathPrefix + "%2A/%2A/", Protocol, bearer, 200, false},
		"address and port":   {"CONNECT", "192.0.2.1:8443", Path, Protocol, bearer, 200, false},
		"default port":       {"CONNECT", host + ":443", Path, Protocol, bearer, 200, false},
		"other authority":    {"CONNECT", "other.example", Path, Protocol, bearer, 421, false},
		"other port":         {"CONNECT", host + ":8443", Path, Protocol, bearer, 421, false},
		"no token":           {"CONNECT", host, Path, Protocol, nil, 401, false},
		"scoped":             {"CONNECT", host, pathPrefix + "192.0.2.1/*/", Protocol, bearer, 403, false},
		"malformed scope":    {"CONNECT", host, pathPrefix + "*/999/", Protocol, bearer, 400, false},
		"other protocol":     {"CONNECT", host, Path, "connect-udp", bearer, 404, true},
		"get of the path":    {"GET", host, Path, "", bearer, 404, true},
		"connect to nowhere": {"CONNECT", host, "/elsewhere", Protocol, bearer, 404, true},
		"the site":           {"GET", host, "/", "", nil, 404, true},
	} {
		status, header, body := rawRequest(t, conn, c.method, c.authority, c.path, c.protocol, c.header)
		if status != c.status || (body == "a web site") != c.site {
			t.Errorf("%s: %d %q", name, status, body)
		}
		if got := header.Get("Capsule-Protocol"); (got == "?1") != (status == 200) {
			t.Errorf("%s: Capsule-Protocol %q", name, got)
		}
		if got := header.Get("WWW-Authenticate"); (got != "") != (status == 401) {
			t.Errorf("%s: WWW-Authenticate %q", name, got)
		}
		if status == 200 {
			if err := <-(<-g.sessions).result; !errors.Is(err, ErrPeerClosed) {
				t.Errorf("%s: session ended with %v", name, err)
			}
		}
	}
	if n := refused.Load(); n != 5 {
		t.Errorf("%d refusals reported", n)
	}
	large := http.Header{"X-Large": {strings.Repeat("x", MaxHeaderBytes)}}
	if status, _, _ := rawRequest(t, conn, "CONNECT", host, Path, Protocol, large); status != 431 {
		t.Errorf("large header: %d", status)
	}
}

func TestHandlerAcceptsAnyAuthorityByDefault(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	g := &gateway{}
	addr := serveHTTP3(t, NewServer(newGateway(t, HandlerConfig[string]{}, g)), serverTLS)
	quicConn, err := dialQUIC(t, addr, clientTLS, PreferredPacketSize)
	if err != nil {
		t.Fatal(err)
	}
	conn := NewHTTP3Conn(quicConn)
	for _, authority := range []string{"anything.example", "[2001:db8::1]:7"} {
		if status, _, _ := rawRequest(t, conn, "CONNECT", authority, Path, Protocol, bearer); status != 200 {
			t.Errorf("%s: %d", authority, status)
		}
	}
}

func TestNewHandlerRequiresItsHooks(t *testing.T) {
	authorize := func(*http.Request) (int, int, error) { return 0, 0, nil }
	if _, err := NewHandler(HandlerConfig[int]{Authorize: authorize}); err == nil {
		t.Error("no Serve was accepted")
	}
	if _, err := NewHandler(HandlerConfig[int]{Serve: func(context.Context, int, *Session) {}}); err == nil {
		t.Error("no Authorize was accepted")
	}
}

// fakeWriter is a response writer whose SETTINGS arrive when the test says so.
type fakeWriter struct {
	http.ResponseWriter
	header   http.Header
	body     bytes.Buffer
	status   int
	settings chan struct{}
	enabled  bool
}

func (w *fakeWriter) Header() http.Header               { return w.header }
func (w *fakeWriter) Write(b []byte) (int, error)       { return w.body.Write(b) }
func (w *fakeWriter) WriteHeader(status int)            { w.status = status }
func (w *fakeWriter) ReceivedSettings() <-chan struct{} { return w.settings }
func (w *fakeWriter) Settings() *http3.Settings {
	return &http3.Settings{EnableDatagrams: w.enabled}
}

// HTTPStream fails, so that an accepted request ends after its 200.
func (w *fakeWriter) HTTPStream() (*http3.Stream, error) { return nil, errors.New("not a real stream") }

func newFakeWriter() *fakeWriter {
	return &fakeWriter{header: http.Header{}, settings: make(chan struct{})}
}

func connectIPRequest(t *testing.T) *http.Request {
	t.Helper()
	text := "GET " + Path + " HTTP/1.1\r\nHost: g\r\n\r\n"
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	r.Method, r.Proto = http.MethodConnect, Protocol
	return r.WithContext(t.Context())
}

// Calls of Authorize are bounded in number; other requests wait, but not for ever.
func TestAuthorizeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		release := make(chan struct{})
		h, err := NewHandler(HandlerConfig[int]{
			Authorize: func(r *http.Request) (int, int, error) {
				asked.Add(1)
				if r.Header.Get("X-Hang") != "" {
					<-release
				}
				return 0, 0, context.Cause(r.Context())
			},
			Serve: func(context.Context, int, *Session) { t.Error("served") },
		})
		if err != nil {
			t.Fatal(err)
		}
		serve := func(header string) *fakeWriter {
			r, w := connectIPRequest(t), newFakeWriter()
			w.enabled = true
			close(w.settings)
			r.Header.Set(header, "1")
			h.ServeHTTP(w, r)
			return w
		}
		statuses := make(chan int)
		for range maxPendingRequests {
			go func() { statuses <- serve("X-Hang").status }()
		}
		synctest.Wait()
		begin := time.Now()
		w := serve("X-Prompt")
		if w.status != http.StatusServiceUnavailable || w.body.Len() != 0 || time.Since(begin) != AuthorizeTimeout {
			t.Errorf("one too many: %d %q after %v", w.status, w.body.String(), time.Since(begin))
		}
		waiting := make(chan int)
		go func() { waiting <- serve("X-Prompt").status }()
		synctest.Wait()
		if n := asked.Load(); n != maxPendingRequests {
			t.Errorf("%d asked at once", n)
		}
		close(release)
		if status := <-waiting; status != http.StatusOK {
			t.Errorf("after its turn came: %d", status)
		}
		for range maxPendingRequests {
			if status := <-statuses; status != http.StatusForbidden { // its time is over
				t.Errorf("hung: %d", status)
			}
		}
	})
}

// However many clients keep their SETTINGS back, others are admitted; nobody waits
// longer than AuthorizeTimeout.
func TestSettingsKeptBackLockNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := NewHandler(HandlerConfig[int]{
			Authorize: func(*http.Request) (int, int, error) { return 0, 0, nil },
			Serve:     func(context.Context, int, *Session) { t.Error("served") },
		})
		if err != nil {
			t.Fatal(err)
		}
		const silent = 2 * maxPendingRequests
		statuses := make(chan int, silent)
		begin := time.Now()
		for range silent {
			w := newFakeWriter()
			go func() {
				h.ServeHTTP(w, connectIPRequest(t))
				statuses <- w.status
			}()
		}
		synctest.Wait()
		w := newFakeWriter()
		w.enabled = true
		close(w.settings)
		if h.ServeHTTP(w, connectIPRequest(t)); w.status != http.StatusOK || time.Since(begin) != 0 {
			t.Errorf("another client: %d after %v", w.status, time.Since(begin))
		}
		for range silent {
			if status := <-statuses; status != http.StatusRequestTimeout {
				t.Errorf("silent client: %d", status)
			}
		}
		if d := time.Since(begin); d != AuthorizeTimeout {
			t.Errorf("took %v", d)
		}
	})
}

func TestClientWithoutDatagramsIsRefused(t *testing.T) {
	h, err := NewHandler(HandlerConfig[int]{
		Authorize: func(*http.Request) (int, int, error) { return 0, 0, nil },
		Serve:     func(context.Context, int, *Session) { t.Error("served") },
	})
	if err != nil {
		t.Fatal(err)
	}
	w := newFakeWriter()
	close(w.settings)
	h.ServeHTTP(w, connectIPRequest(t))
	if w.status != http.StatusBadRequest || w.body.String() != ErrNoDatagrams.Error() {
		t.Errorf("%d %q", w.status, w.body.String())
	}
}

// judge is a handler whose Authorize does what the request says.
// Where it says to wait, it sends on the channel and then waits until it is closed.
func judge(t *testing.T, wait chan struct{}) http.Handler {
	t.Helper()
	h, err := NewHandler(HandlerConfig[int]{
		Authorities: []string{"gateway.example"},
		Authorize: func(r *http.Request) (int, int, error) {
			if r.Header.Get("X-Wait") != "" {
				wait <- struct{}{}
				<-wait
			}
			text := "node \x1b[31mlaptop\n" + strings.Repeat("\u00e9", maxRefusalLineBytes)
			switch r.Header.Get("X-Verdict") {
			case "member":
				return 0, 0, nil
			case "revoked":
				return 0, http.StatusForbidden, errors.New(text)
			case "later":
				return 0, http.StatusServiceUnavailable, errors.New(text)
			case "teapot":
				return 0, http.StatusTeapot, errors.New(text)
			}
			return 0, http.StatusNotFound, errors.New(text)
		},
		Serve: func(ctx context.Context, _ int, s *Session) { _ = s.Run(ctx, func(Event) {}) },
		Fallback: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Site", "1")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, "a web site")
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func verdict(v string) http.Header { return http.Header{"X-Verdict": {v}} }

// Whoever Authorize does not know cannot tell the handler from its Fallback.
func TestStrangerSeesOnlyTheFallback(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	addr := serveHTTP3(t, NewServer(judge(t, nil)), serverTLS)
	for _, datagrams := range []bool{true, false} {
		quicConn, err := dialQUIC(t, addr, clientTLS, PreferredPacketSize)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http3.Transport{EnableDatagrams: datagrams}
		conn := transport.NewClientConn(quicConn)
		const host = "gateway.example"
		status, header, body := rawRequest(t, conn, "CONNECT", host, "/unknown", Protocol, nil)
		want := fmt.Sprint(status, header.Get("X-Site"), len(header), body)
		for _, c := range []struct{ authority, path string }{
			{host, Path},
			{host, pathPrefix + "192.0.2.1/*/"},
			{host, pathPrefix + "*/999/"},
			{host, pathPrefix},
			{host, Path + "?q"},
			{"other.example", Path},
		} {
			status, header, body := rawRequest(t, conn, "CONNECT", c.authority, c.path, Protocol, verdict("stranger"))
			if got := fmt.Sprint(status, header.Get("X-Site"), len(header), body); got != want {
				t.Errorf("%v: %s, want %s", c, got, want)
			}
		}
	}
}

// A client that may know reads why it is refused; Error shows it in one line.
func TestRefusalSaysWhy(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	addr := serveHTTP3(t, NewServer(judge(t, nil)), serverTLS)
	quicConn, err := dialQUIC(t, addr, clientTLS, PreferredPacketSize)
	if err != nil {
		t.Fatal(err)
	}
	conn := NewHTTP3Conn(quicConn)
	line := "node  [31mlaptop " + strings.Repeat("\u00e9", (maxRefusalLineBytes-17)/2)
	for _, c := range []struct {
		verdict, authority string
		status             int
		body               string
	}{
		{"revoked", "gateway.example", 403, line},
		{"revoked", "other.example", 403, line},
		{"later", "gateway.example", 503, line},
		{"teapot", "gateway.example", 418, ""},
		{"member", "other.example", 421, `authority "other.example" is not ours`},
	} {
		_, _, err := DialHTTP3(t.Context(), conn, Request{Authority: c.authority, Header: verdict(c.verdict)})
		var refused *StatusError
		if !errors.As(err, &refused) || refused.StatusCode != c.status || string(refused.Body) != c.body {
			t.Errorf("%s at %s: %v, %q", c.verdict, c.authority, err, refused.Body)
			continue
		}
		want := fmt.Sprintf("refused: %d %s", c.status, http.StatusText(c.status))
		if c.body != "" {
			want += ": " + c.body
		}
		if !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s at %s: error %q, want %q", c.verdict, c.authority, err, want)
		}
	}
}

// While one request of a connection is pending another is refused, but nobody who is
// not authorized learns so. Other connections are not concerned.
func TestOnePendingRequestPerConnection(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	wait := make(chan struct{})
	addr := serveHTTP3(t, NewServer(judge(t, wait)), serverTLS)
	var conns []*http3.ClientConn
	for range 2 {
		quicConn, err := dialQUIC(t, addr, clientTLS, PreferredPacketSize)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, NewHTTP3Conn(quicConn))
	}
	ask := func(conn *http3.ClientConn, header http.Header) int {
		s, rsp, err := DialHTTP3(t.Context(), conn, Request{Authority: "gateway.example", Header: header})
		if rsp == nil {
			t.Errorf("no answer: %v", err)
			return 0
		}
		if s != nil {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		return rsp.StatusCode
	}
	check := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	slow := verdict("member")
	slow.Set("X-Wait", "1")
	first := make(chan int)
	go func() { first <- ask(conns[0], slow) }()
	<-wait
	check("second", ask(conns[0], verdict("member")), http.StatusTooManyRequests)
	check("second of a stranger", ask(conns[0], verdict("stranger")), http.StatusNotFound)
	check("other connection", ask(conns[1], verdict("member")), http.StatusOK)
	close(wait)
	check("first", <-first, http.StatusOK)
	check("next", ask(conns[0], verdict("member")), http.StatusOK)
}

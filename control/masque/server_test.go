package masque

import (
	"bufio"
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
	status   int
	settings chan struct{}
	enabled  bool
}

func (w *fakeWriter) Header() http.Header               { return w.header }
func (w *fakeWriter) WriteHeader(status int)            { w.status = status }
func (w *fakeWriter) ReceivedSettings() <-chan struct{} { return w.settings }
func (w *fakeWriter) Settings() *http3.Settings {
	return &http3.Settings{EnableDatagrams: w.enabled}
}

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

// Requests that nobody has authorized are bounded in time and number.
func TestPendingRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := NewHandler(HandlerConfig[int]{
			Authorize: func(r *http.Request) (int, int, error) {
				<-r.Context().Done()
				return 0, 0, context.Cause(r.Context())
			},
			Serve: func(context.Context, int, *Session) { t.Error("served") },
		})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		statuses := make(chan int, maxPendingRequests)
		for i := range maxPendingRequests {
			w := newFakeWriter()
			if w.enabled = i%2 == 0; w.enabled {
				close(w.settings) // hangs in Authorize; the others wait for SETTINGS
			}
			go func() {
				h.ServeHTTP(w, connectIPRequest(t))
				statuses <- w.status
			}()
		}
		synctest.Wait()
		w := newFakeWriter()
		if h.ServeHTTP(w, connectIPRequest(t)); w.status != http.StatusServiceUnavailable {
			t.Errorf("one too many: %d", w.status)
		}
		count := map[int]int{}
		for range maxPendingRequests {
			count[<-statuses]++
		}
		const half = maxPendingRequests / 2
		if count[http.StatusForbidden] != half || count[http.StatusRequestTimeout] != half {
			t.Errorf("answers %v", count)
		}
		if d := time.Since(start); d != AuthorizeTimeout {
			t.Errorf("took %v", d)
		}
	})
}

func TestClientWithoutDatagramsIsRefused(t *testing.T) {
	h, err := NewHandler(HandlerConfig[int]{
		Authorize: func(*http.Request) (int, int, error) { t.Error("asked"); return 0, 0, nil },
		Serve:     func(context.Context, int, *Session) { t.Error("served") },
	})
	if err != nil {
		t.Fatal(err)
	}
	w := newFakeWriter()
	close(w.settings)
	if h.ServeHTTP(w, connectIPRequest(t)); w.status != http.StatusBadRequest {
		t.Errorf("status %d", w.status)
	}
}

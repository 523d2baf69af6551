package masque

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// dialHandler dials a server with the given handler.
func dialHandler(
	t *testing.T, ctx context.Context, handler http.HandlerFunc,
) (*Session, *http.Response, error) {
	t.Helper()
	return dialServer(t, ctx, NewServer(handler))
}

// dialServer dials a server.
func dialServer(t *testing.T, ctx context.Context, server *http3.Server) (*Session, *http.Response, error) {
	t.Helper()
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	addr := serveHTTP3(t, server, serverTLS)
	conn, err := dialQUIC(t, addr, clientTLS, PreferredPacketSize)
	if err != nil {
		t.Fatal(err)
	}
	return Dial(ctx, conn, Request{Authority: "gateway.example", Header: http.Header{"X-Test": {"1"}}})
}

// RFC 9484 section 4.4 says what a request looks like.
func TestRFC9484Section4_4Request(t *testing.T) {
	requests := make(chan *http.Request, 1)
	_, _, err := dialHandler(t, t.Context(), func(w http.ResponseWriter, r *http.Request) {
		requests <- r
		w.WriteHeader(http.StatusTeapot)
	})
	if err == nil {
		t.Fatal("no error")
	}
	r := <-requests
	if r.Method != "CONNECT" || r.Proto != "connect-ip" || r.Host != "gateway.example" ||
		r.RequestURI != "/.well-known/masque/ip/*/*/" || r.Header.Get("Capsule-Protocol") != "?1" ||
		r.Header.Get("X-Test") != "1" || r.Header.Get("Accept-Encoding") != "" {
		t.Errorf("request %+v", r)
	}
}

// RFC 9484 section 4.5: anything but 2xx is a failure; 1xx is skipped.
func TestRFC9484Section4_5Refused(t *testing.T) {
	for _, status := range []int{301, 403, 503} {
		_, rsp, err := dialHandler(t, t.Context(), func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("X-Reason", "closed")
			w.Header().Set("Content-Type", refusalContentType)
			w.WriteHeader(status)
			_, _ = w.Write([]byte(strings.Repeat("x", 3*maxRefusalBytes)))
		})
		var refused *StatusError
		if !errors.As(err, &refused) || refused.StatusCode != status || rsp == nil || rsp.StatusCode != status {
			t.Fatalf("%d: %v, %v", status, rsp, err)
		}
		if len(refused.Body) != maxRefusalBytes || refused.Header.Get("X-Reason") != "closed" {
			t.Errorf("%d: %d bytes, header %v", status, len(refused.Body), refused.Header)
		}
		if n := strings.Count(err.Error(), "x"); n != maxRefusalLineBytes {
			t.Errorf("the error repeats %d bytes of the peer's text", n)
		}
	}
}

// Whatever a server sends as the reason, an error stays one printable line.
func TestStatusErrorText(t *testing.T) {
	const plain = "text/plain; charset=utf-8"
	for _, c := range []struct{ contentType, body, want string }{
		{plain, "", ""},
		{plain, " \t\n", ""},
		{plain, "node laptop is revoked", ": node laptop is revoked"},
		{plain, "404 page not found\r\nnext", ": 404 page not found"},
		{plain, "\x1b]0;title\x07a\u202eb\u2028c\x00", ": ]0;title a b c"},
		{plain, "a\xffb", ": a\ufffdb"},
		{plain, strings.Repeat("\xff", 4096), ": " + strings.Repeat("\ufffd", maxRefusalLineBytes/3)},
		{"text/html", "<html>", ""},
		{"", "bytes", ""},
	} {
		header := http.Header{"Content-Type": {c.contentType}}
		err := &StatusError{StatusCode: 403, Header: header, Body: []byte(c.body)}
		if got := err.Error(); got != "connect-ip request refused: 403 Forbidden"+c.want {
			t.Errorf("%q: %q", c.body, got)
		}
	}
	bare := &StatusError{StatusCode: 503}
	if got := bare.Error(); got != "connect-ip request refused: 503 Service Unavailable" {
		t.Error(got)
	}
}

func TestTooManyInformationalResponses(t *testing.T) {
	_, _, err := dialHandler(t, t.Context(), func(w http.ResponseWriter, _ *http.Request) {
		for range maxInformational + 1 {
			w.WriteHeader(http.StatusEarlyHints)
		}
	})
	if err == nil || !strings.Contains(err.Error(), "informational") {
		t.Errorf("got %v", err)
	}
}

func TestServerWithoutDatagrams(t *testing.T) {
	_, _, err := dialServer(t, t.Context(), &http3.Server{Handler: http.NotFoundHandler()})
	if !errors.Is(err, ErrNoDatagrams) {
		t.Errorf("got %v", err)
	}
}

// The server is a bare QUIC listener that writes its SETTINGS by hand.
func TestServerWithoutExtendedConnect(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	transport := &quic.Transport{Conn: listenUDP(t)}
	listener, err := transport.Listen(serverTLS, QUICConfig(SmallestPacketSize))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close(); _ = transport.Close() })
	go func() {
		conn, err := listener.Accept(t.Context())
		if err != nil {
			return
		}
		str, err := conn.OpenUniStream()
		if err != nil {
			return
		}
		// Control stream with SETTINGS of H3_DATAGRAM = 1 alone.
		_, _ = str.Write([]byte{0x00, 0x04, 0x02, 0x33, 0x01})
	}()
	conn, err := dialQUIC(t, transport.Conn.LocalAddr(), clientTLS, PreferredPacketSize)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Dial(t.Context(), conn, Request{Authority: "g"}); !errors.Is(err, ErrNoExtendedConnect) {
		t.Errorf("got %v", err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan struct{})
	_, _, err := dialHandler(t, ctx, func(_ http.ResponseWriter, r *http.Request) {
		defer close(done)
		cancel(errRunning)
		<-r.Context().Done()
	})
	if !errors.Is(err, errRunning) {
		t.Errorf("got %v", err)
	}
	<-done
}

func TestDialOnDeadConnection(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	addr := serveHTTP3(t, NewServer(http.NotFoundHandler()), serverTLS)
	conn, err := dialQUIC(t, addr, clientTLS, PreferredPacketSize)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWithError(CodeRestart, "bye"); err != nil {
		t.Fatal(err)
	}
	var app *quic.ApplicationError
	if _, _, err := Dial(t.Context(), conn, Request{Authority: "g"}); !errors.As(err, &app) {
		t.Errorf("got %v", err)
	}
}

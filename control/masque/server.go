package masque

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Bounds on requests that nobody has authorized yet.
const (
	// MaxHeaderBytes bounds a request's header; longer ones get 431.
	MaxHeaderBytes = 16 << 10
	// AuthorizeTimeout bounds the time from a request's header to its answer.
	AuthorizeTimeout = 10 * time.Second
	// ConnectionGrace is how long a connection may live without a session before
	// the server closes it, so that holding connections open is not free.
	ConnectionGrace = 30 * time.Second
	// maxPendingRequests bounds the calls of Authorize at once; other requests wait.
	maxPendingRequests = 64
)

// HandlerConfig says what a [Handler] accepts and does. P is what the caller knows a
// client by, for example a node's record.
type HandlerConfig[P any] struct {
	// Authorities are the values of :authority to accept, host names or addresses
	// with or without a port; 443 if none is given. Empty accepts any.
	Authorities []string

	// Authorize decides on a request before anything else is looked at; r.TLS holds
	// the client's certificates and r.Context() ends after AuthorizeTimeout. With an
	// error the status is the answer, 403 if it is 0, and for 403 and 503 the client
	// gets to read the error's text. For 404 Fallback answers, as it does for any
	// unknown path: return it for whoever is not to know that there is a server. Required.
	Authorize func(r *http.Request) (principal P, status int, err error)

	// Serve owns the session until it returns, after which the session is closed.
	// It has to call Run, which notices the end of stream and connection and tells an
	// orderly one from a loss; ctx therefore carries the request's values but does
	// not end with it. Required.
	Serve func(ctx context.Context, principal P, s *Session)

	// Fallback answers every other request; 404 if nil.
	Fallback http.Handler

	// OnRefused, if set, is told of each CONNECT-IP request refused and why.
	OnRefused func(r *http.Request, status int, err error)
}

// Handler is an http.Handler for an http3.Server that accepts CONNECT-IP requests
// for [Path]. See [NewServer].
type Handler[P any] struct {
	config      HandlerConfig[P]
	authorities map[string]bool
	pending     chan struct{}
}

// NewHandler checks the configuration and returns a handler.
func NewHandler[P any](config HandlerConfig[P]) (*Handler[P], error) {
	if config.Authorize == nil || config.Serve == nil {
		return nil, errors.New("connect-ip handler: Authorize and Serve are required")
	}
	if config.Fallback == nil {
		config.Fallback = http.NotFoundHandler()
	}
	h := &Handler[P]{
		config:      config,
		authorities: make(map[string]bool),
		pending:     make(chan struct{}, maxPendingRequests),
	}
	for _, a := range config.Authorities {
		h.authorities[canonicalAuthority(a)] = true
	}
	return h, nil
}

// ServeHTTP implements http.Handler.
func (h *Handler[P]) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !isConnectIP(r) {
		h.config.Fallback.ServeHTTP(w, r)
		return
	}
	principal, no := h.admit(w, r)
	if no != nil {
		h.refuse(w, r, no)
		return
	}
	s, err := h.accept(w, r)
	if err != nil {
		h.refused(r, http.StatusInternalServerError, err)
		return
	}
	defer func() {
		// Serve has returned: nobody is left to tell, and Close on an ended session is nil.
		_ = s.Close()
	}()
	h.config.Serve(context.WithoutCancel(r.Context()), principal, s)
}

// refusal is why a request is not accepted.
type refusal struct {
	status int
	err    error
	told   bool // the client may read the error's text
}

// admit runs every check that precedes the answer. Authorize comes first: whoever it
// does not know must not learn from any other check that there is something here.
func (h *Handler[P]) admit(w http.ResponseWriter, r *http.Request) (principal P, no *refusal) {
	ctx, cancel := context.WithTimeout(r.Context(), AuthorizeTimeout)
	defer cancel()
	alone := true
	if conn, ok := ctx.Value(connectionKey{}).(*connection); ok {
		if alone = conn.pending.CompareAndSwap(false, true); alone {
			defer conn.pending.Store(false)
		}
	}
	principal, no = h.authorize(r.WithContext(ctx))
	if no != nil {
		return principal, no
	}
	status, err := http.StatusTooManyRequests, errors.New("another request of this connection is pending")
	if alone {
		status, err = h.check(ctx, w, r)
	}
	if err != nil {
		return principal, &refusal{status: status, err: err, told: true}
	}
	return principal, nil
}

// authorize asks Authorize, for a bounded number of requests at once. How long it
// takes is not in the client's hands, so nobody can keep others waiting.
func (h *Handler[P]) authorize(r *http.Request) (principal P, no *refusal) {
	select {
	case h.pending <- struct{}{}:
		defer func() { <-h.pending }()
	case <-r.Context().Done():
		err := errors.New("too many requests pending")
		return principal, &refusal{status: http.StatusServiceUnavailable, err: err}
	}
	principal, status, err := h.config.Authorize(r)
	if err == nil {
		return principal, nil
	}
	if status == 0 {
		status = http.StatusForbidden
	}
	told := status == http.StatusForbidden || status == http.StatusServiceUnavailable
	return principal, &refusal{status: status, err: err, told: told}
}

// check looks at what an authorized client asks for, the cheap things first.
func (h *Handler[P]) check(
	ctx context.Context, w http.ResponseWriter, r *http.Request,
) (status int, err error) {
	if len(h.authorities) > 0 && !h.authorities[canonicalAuthority(r.Host)] {
		return http.StatusMisdirectedRequest, fmt.Errorf("authority %q is not ours", r.Host)
	}
	if status, err := checkScope(r.URL); err != nil {
		return status, err
	}
	return checkSettings(ctx, w)
}

// checkSettings waits for the client's SETTINGS, which may arrive after its request.
func checkSettings(ctx context.Context, w http.ResponseWriter) (status int, err error) {
	settings, ok := w.(http3.Settingser)
	if !ok {
		return http.StatusHTTPVersionNotSupported, errors.New("not an http/3 request")
	}
	select {
	case <-settings.ReceivedSettings():
	case <-ctx.Done():
		return http.StatusRequestTimeout, fmt.Errorf("wait for settings: %w", context.Cause(ctx))
	}
	if !settings.Settings().EnableDatagrams {
		return http.StatusBadRequest, ErrNoDatagrams
	}
	return 0, nil
}

// accept sends the 200 and takes the stream over.
func (h *Handler[P]) accept(w http.ResponseWriter, r *http.Request) (*Session, error) {
	streamer, ok := w.(http3.HTTPStreamer)
	if !ok {
		return nil, errors.New("not an http/3 request")
	}
	w.Header().Set(capsuleProtocolHeader, capsuleProtocolValue)
	w.WriteHeader(http.StatusOK)
	str, err := streamer.HTTPStream()
	if err != nil {
		return nil, fmt.Errorf("take over request stream: %w", err)
	}
	if conn, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		conn.grace.Stop()
	}
	return NewSession(str), nil
}

func (h *Handler[P]) refuse(w http.ResponseWriter, r *http.Request, no *refusal) {
	h.refused(r, no.status, no.err)
	if no.status == http.StatusNotFound {
		h.config.Fallback.ServeHTTP(w, r)
		return
	}
	if no.status == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") == "" {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if !no.told {
		w.WriteHeader(no.status)
		return
	}
	w.Header().Set("Content-Type", refusalContentType)
	w.WriteHeader(no.status)
	_, _ = io.WriteString(w, printableLine(no.err.Error())) // a client that has gone needs no reason
}

func (h *Handler[P]) refused(r *http.Request, status int, err error) {
	if h.config.OnRefused != nil {
		h.config.OnRefused(r, status, err)
	}
}

// NewServer returns an http3.Server with the limits this package wants on
// connections and requests: datagrams on, headers of at most MaxHeaderBytes, one
// CONNECT-IP request pending per connection (others get 429), connections without a
// session closed after ConnectionGrace. TLS and QUIC settings
// are those of the listener: see [TLSConfig], [QUICConfig] and [InitialSizes]. Use
// ServeListener or ServeQUICConn.
func NewServer(handler http.Handler) *http3.Server {
	return &http3.Server{
		Handler:         handler,
		EnableDatagrams: true,
		MaxHeaderBytes:  MaxHeaderBytes,
		IdleTimeout:     ConnectionGrace,
		ConnContext:     connectionGrace,
	}
}

// connectionKey is the context key of a connection's state.
type connectionKey struct{}

// connection is what the server keeps of a QUIC connection.
type connection struct {
	grace   *time.Timer // closes a connection that has no session
	pending atomic.Bool // a CONNECT-IP request has no answer yet
}

// connectionGrace closes a connection that has no session within ConnectionGrace.
// The server's own idle timeout does not see one that keeps a request unfinished.
func connectionGrace(ctx context.Context, conn *quic.Conn) context.Context {
	timer := time.AfterFunc(ConnectionGrace, func() {
		// The connection is given up in either case.
		_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	})
	context.AfterFunc(conn.Context(), func() { timer.Stop() })
	return context.WithValue(ctx, connectionKey{}, &connection{grace: timer})
}

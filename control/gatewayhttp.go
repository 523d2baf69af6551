package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/time/rate"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// connKey is the context key of a request's QUIC connection.
type connKey struct{}

// Server returns the gateway's HTTP/3 server: CONNECT-IP for nodes, the join exchange for invitees, an ordinary web
// site for everyone else.
func (g *Gateway) Server() (*http3.Server, error) {
	mux := http.NewServeMux()
	mux.HandleFunc(joinPath, g.serveJoin)
	mux.Handle("/", g.site)
	handler, err := masque.NewHandler(masque.HandlerConfig[principal]{
		Authorize: g.authorize,
		Serve:     g.serve,
		Fallback:  mux,
		OnRefused: func(r *http.Request, status int, err error) {
			if g.refusals.Allow() {
				g.observe(Event{Kind: EventNotice, Text: fmt.Sprintf("session refused (%d) to %s", status, r.RemoteAddr), Err: err})
			}
		},
	})
	if err != nil {
		return nil, err
	}
	server := masque.NewServer(handler)
	inner := server.ConnContext
	server.ConnContext = func(ctx context.Context, conn *quic.Conn) context.Context {
		return context.WithValue(inner(ctx, conn), connKey{}, conn)
	}
	return server, nil
}

// authorize finds the node behind a CONNECT-IP request: by the certificate it showed in the handshake, or by bearer
// token. To whoever has neither the path does not exist.
func (g *Gateway) authorize(r *http.Request) (principal, int, error) {
	conn, ok := r.Context().Value(connKey{}).(*quic.Conn)
	if !ok || r.TLS == nil {
		return principal{}, http.StatusNotFound, errNoHandshake
	}
	p := principal{conn: conn, group: keyExchange(*r.TLS), remote: addrPort(conn.RemoteAddr())}
	var err error
	if bearer, found := bearerToken(r); found {
		p.byToken = true
		p.node, err = g.cfg.Authority.AuthenticateBearer(bearer)
		if err != nil {
			return principal{}, http.StatusNotFound, err
		}
		return p, 0, nil
	}
	if len(r.TLS.PeerCertificates) == 0 {
		return principal{}, http.StatusNotFound, errors.New("neither certificate nor token")
	}
	p.expires = r.TLS.PeerCertificates[0].NotAfter
	p.node, err = g.cfg.Authority.VerifyPeer(r.TLS.PeerCertificates)
	return p, refusalStatus(err), err
}

// refusalStatus is the answer to a client whose certificate was not accepted. Only a node of ours learns more than that
// there is nothing here: 403 means that it has lost admission, 503 that it may come back later.
func refusalStatus(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, admit.ErrWrongNetwork), errors.Is(err, admit.ErrCertificate):
		return http.StatusNotFound
	case errors.Is(err, admit.ErrRevoked), errors.Is(err, admit.ErrUnknownNode):
		return http.StatusForbidden
	}
	return http.StatusServiceUnavailable
}

// serve owns one session until it ends.
func (g *Gateway) serve(ctx context.Context, p principal, s *masque.Session) {
	l := &gatewayLink{
		node: p.node, byToken: p.byToken, renewAt: p.expires.Add(-admit.RenewBefore),
		offers: rate.NewLimiter(rate.Every(offerPeriod), offerBurst),
		link:   link{conn: p.conn, session: s, remote: p.remote, group: p.group, since: g.cfg.Now()},
	}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	defer l.cancel(nil)
	if !p.byToken {
		socket, _ := p.conn.Context().Value(socketKey{}).(*LaneSocket) // nil where there is none: no lanes then
		l.lanes = g.cfg.Lanes.begin(l.node.ID, &l.link, socket, keyschedule.Server)
	}
	defer g.cfg.Lanes.ended(l.lanes, false) // unless it is told below how
	if !g.post(ctx, gatewayMessage{link: l, begun: true}) {
		return
	}
	// Not in the loop: many that come back at once share a write to disk.
	var recording sync.WaitGroup
	defer recording.Wait()
	recording.Go(func() { g.touch(l) })
	err := s.Run(l.ctx, func(e masque.Event) {
		if m, ok := e.(masque.PrivateCapsule); ok && m.Type == masque.CapsuleLane {
			g.laneMessage(l, m.Payload)
			return
		}
		g.post(l.ctx, gatewayMessage{link: l, event: e})
	})
	inOrder := orderly(err)
	if cause := context.Cause(p.conn.Context()); cause != nil {
		err = cause
	}
	g.cfg.Lanes.ended(l.lanes, inOrder || orderly(err))
	g.post(context.WithoutCancel(ctx), gatewayMessage{link: l, ended: true, err: err})
}

// touch records that a node has a session.
func (g *Gateway) touch(l *gatewayLink) {
	err := recovered(func() error { return g.cfg.Authority.Touch(l.node.ID) })
	if err != nil && !errors.Is(err, admit.ErrRevoked) { // the loop sees to that
		g.observe(Event{Kind: EventNotice, Node: l.node.Name, Text: "last session not recorded", Err: err})
	}
}

// laneMessage takes what a member says about lanes.
func (g *Gateway) laneMessage(l *gatewayLink, payload []byte) {
	err := g.cfg.Lanes.message(l.lanes, payload)
	if errors.Is(err, lane.ErrMalformed) {
		l.close(quic.ApplicationErrorCode(http3.ErrCodeMessageError), "malformed lane message")
	}
	if err != nil && g.refusals.Allow() {
		g.observe(Event{Kind: EventNotice, Node: l.node.Name, Text: "lane message refused", Err: err})
	}
}

// post tells the loop something, unless the session or the gateway ends first.
func (g *Gateway) post(ctx context.Context, msg gatewayMessage) bool {
	select {
	case g.messages <- msg:
		return true
	case <-ctx.Done():
	case <-g.done:
	}
	return false
}

// newSite is what a stranger sees.
func newSite() http.Handler {
	const page = `<!doctype html><html lang="en"><meta charset="utf-8"><title>It works</title><h1>It works</h1></html>
`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, page) // the visitor hung up
	})
}

package masque

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/testutils/simnet"
)

// simulated is a client's connection to a server over a simulated network, in the
// virtual time of a synctest bubble.
func simulated(t *testing.T, server *http3.Server) (conn *quic.Conn, end func()) {
	t.Helper()
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	network := &simnet.Simnet{Router: &simnet.PerfectRouter{}}
	link := simnet.NodeBiDiLinkSettings{
		Latency:  10 * time.Millisecond,
		Uplink:   simnet.LinkSettings{MTU: 1472},
		Downlink: simnet.LinkSettings{MTU: 1472},
	}
	near := network.NewEndpoint(&net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, link)
	far := network.NewEndpoint(&net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 2}, link)
	if err := network.Start(); err != nil {
		t.Fatal(err)
	}
	listening, dialing := &quic.Transport{Conn: far}, &quic.Transport{Conn: near}
	listener, err := listening.Listen(serverTLS, NewInitialSizes().QUICConfig())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.ServeListener(listener)
	}()
	conn, err = dialing.Dial(t.Context(), far.LocalAddr(), clientTLS, QUICConfig(PreferredPacketSize))
	if err != nil {
		t.Fatal(err)
	}
	return conn, func() {
		_ = conn.CloseWithError(0, "")
		_ = server.Close()
		_, _, _ = listener.Close(), listening.Close(), dialing.Close()
		_, _, _ = near.Close(), far.Close(), network.Close()
		<-served
	}
}

// A connection without a session is closed after its grace, also if it keeps a
// request unfinished; one that has had a session is not.
func TestConnectionGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, end := simulated(t, NewServer(http.NotFoundHandler()))
		defer end()
		str, err := conn.OpenStreamSync(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := str.Write([]byte{0x01, 0x40}); err != nil { // half a HEADERS frame
			t.Fatal(err)
		}
		start := time.Now()
		<-conn.Context().Done()
		if d := time.Since(start); d < ConnectionGrace-time.Second || d > ConnectionGrace+time.Second {
			t.Errorf("closed after %v", d)
		}
		var app *quic.ApplicationError
		if err := context.Cause(conn.Context()); !errors.As(err, &app) || !app.Remote {
			t.Errorf("closed with %v", err)
		}
	})
}

func TestSessionOutlivesTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateway{}
		conn, end := simulated(t, NewServer(newGateway(t, HandlerConfig[string]{}, g)))
		defer end()
		s, _, err := Dial(t.Context(), conn, Request{Authority: "g", Header: bearer})
		if err != nil {
			t.Fatal(err)
		}
		client := runClient(t, s)
		<-time.After(10 * ConnectionGrace) // virtual time: only keep-alives pass
		if rtt, err := client.Ping(t.Context(), 0); err != nil || rtt < 20*time.Millisecond {
			t.Errorf("ping: %v, %v", rtt, err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if err := <-client.result; err != nil {
			t.Errorf("client: %v", err)
		}
		if err := <-(<-g.sessions).result; !errors.Is(err, ErrPeerClosed) {
			t.Errorf("server: %v", err)
		}
	})
}

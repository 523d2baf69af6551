package masque

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// testTLS makes a server's and a client's TLS settings around a fresh certificate.
func testTLS(t testing.TB, policy KeyExchange) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return TLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}, policy),
		TLSConfig(&tls.Config{RootCAs: roots, ServerName: "localhost"}, policy)
}

// listenUDP opens a loopback socket.
func listenUDP(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// serveHTTP3 serves a handler on a loopback socket until the test ends.
func serveHTTP3(t testing.TB, server *http3.Server, tlsConf *tls.Config) *net.UDPAddr {
	t.Helper()
	socket := listenUDP(t)
	serveSocket(t, server, tlsConf, NewSocket(newKernelSocket(socket), NewInitialSizes()))
	return socket.LocalAddr().(*net.UDPAddr)
}

// serveSocket serves a handler on a socket until the test ends.
func serveSocket(t testing.TB, server *http3.Server, tlsConf *tls.Config, socket *Socket) {
	t.Helper()
	transport := &quic.Transport{Conn: socket, ConnectionIDLength: 8}
	listener, err := transport.Listen(tlsConf, socket.sizes.QUICConfig())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.ServeListener(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		_ = listener.Close()
		_ = transport.Close()
		<-done
	})
}

// dialQUIC connects to a loopback address until the test ends.
func dialQUIC(t testing.TB, to net.Addr, tlsConf *tls.Config, size uint16) (*quic.Conn, error) {
	t.Helper()
	transport := &quic.Transport{Conn: listenUDP(t), ConnectionIDLength: 8}
	t.Cleanup(func() { _ = transport.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := transport.Dial(ctx, to, tlsConf, QUICConfig(size))
	if err == nil {
		t.Cleanup(func() { _ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") })
	}
	return conn, err
}

// gateway is a handler that accepts bearer tokens and hands out sessions.
type gateway struct {
	sessions chan *running
	owned    []string
	routes   []string
}

func newGateway(t testing.TB, config HandlerConfig[string], g *gateway) http.Handler {
	t.Helper()
	g.sessions = make(chan *running, 4)
	config.Authorize = func(r *http.Request) (string, int, error) {
		if r.Header.Get("Authorization") != "Bearer open sesame" {
			return "", http.StatusUnauthorized, errors.New("no token")
		}
		return "alice", 0, nil
	}
	config.Serve = func(ctx context.Context, principal string, s *Session) {
		if principal != "alice" {
			t.Errorf("principal %q", principal)
		}
		r := &running{Session: s, events: make(chan Event, 100), result: make(chan error, 1)}
		if s.AssignAddresses(Assign(prefixes(g.owned...), AddressRequest{})) != nil ||
			s.AdvertiseRoutes(prefixes(g.routes...)) != nil {
			t.Error("capsules after the 200 were refused")
		}
		g.sessions <- r
		r.result <- s.Run(ctx, func(e Event) {
			if request, ok := e.(AddressRequest); ok {
				if err := s.AssignAddresses(Assign(prefixes(g.owned...), request)); err != nil {
					t.Errorf("answer a request: %v", err)
				}
			}
			r.events <- e
		})
	}
	h, err := NewHandler(config)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

var bearer = http.Header{"Authorization": {"Bearer open sesame"}}

// newLoopback makes a session between our two ends over loopback QUIC.
func newLoopback(t testing.TB, clientSize uint16) (client *Session, server *running) {
	t.Helper()
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	g := &gateway{owned: []string{"100.64.0.2/32", "fd00::2/128"}, routes: []string{"0.0.0.0/0", "::/0"}}
	addr := serveHTTP3(t, NewServer(newGateway(t, HandlerConfig[string]{}, g)), serverTLS)
	conn, err := dialQUIC(t, addr, clientTLS, clientSize)
	if err != nil {
		t.Fatal(err)
	}
	if got := NegotiatedGroup(conn.ConnectionState().TLS); got != "X25519MLKEM768" {
		t.Errorf("key exchange %q", got)
	}
	client, rsp, err := Dial(context.Background(), conn, Request{Authority: addr.String(), Header: bearer})
	if err != nil {
		t.Fatal(err)
	}
	if rsp.StatusCode != http.StatusOK || rsp.Header.Get("Capsule-Protocol") != "?1" {
		t.Errorf("response %v", rsp)
	}
	return client, <-g.sessions
}

func TestLoopback(t *testing.T) {
	s, server := newLoopback(t, PreferredPacketSize)
	client := runClient(t, s)
	owned := prefixes("100.64.0.2/32", "fd00::2/128")
	// Assigned right after the 200, and again in full in answer to the request that a
	// client always sends (RFC 9484 section 4.7.1).
	first := next[AddressAssignment](t, client)
	if !slices.Equal(first.Prefixes(), owned) || first.Addresses[0].RequestID != 0 {
		t.Errorf("first assignment %v", first)
	}
	if r := next[RouteAdvertisement](t, client); len(r.Ranges) != 2 {
		t.Errorf("routes %v", r)
	}
	request := next[AddressRequest](t, server)
	if len(request.Requests) != 2 || request.Requests[0].Prefix != prefixes("0.0.0.0/32")[0] ||
		request.Requests[1].Prefix != prefixes("::/128")[0] {
		t.Errorf("request %v", request)
	}
	second := next[AddressAssignment](t, client)
	if !slices.Equal(second.Prefixes(), owned) ||
		second.Addresses[1].RequestID != request.Requests[1].RequestID {
		t.Errorf("second assignment %v", second)
	}
	// An inner packet of 1,280 bytes fits both ways from the start.
	for _, pair := range [][2]*Session{{client.Session, server.Session}, {server.Session, client.Session}} {
		for _, p := range [][]byte{packetOf(4, 20), packetOf(6, MinIPv6PacketSize)} {
			if err := pair[0].SendPacket(p); err != nil {
				t.Fatal(err)
			}
			got, err := pair[1].ReceivePacket(t.Context())
			if err != nil || !bytes.Equal(got, p) {
				t.Fatalf("received %x, %v", got, err)
			}
		}
		var tooLarge *PacketTooLargeError
		if err := pair[0].SendPacket(packetOf(6, 1453)); !errors.As(err, &tooLarge) {
			t.Errorf("oversize packet: %v", err)
		} else if n := tooLarge.MaxPacketBytes; n < MinIPv6PacketSize || n > 1413 {
			t.Errorf("limit %d", n)
		}
	}
	if _, err := client.Ping(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-server.result; !errors.Is(err, ErrPeerClosed) {
		t.Errorf("server: %v", err)
	}
	if err := <-client.result; err != nil {
		t.Errorf("client: %v", err)
	}
	if _, err := server.ReceivePacket(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("packet after the end: %v", err)
	}
}

// MaxPacketSize is what quic-go takes and one byte more is what it refuses, while
// path MTU discovery moves the limit.
func TestMaxPacketSizeTracksPathMTU(t *testing.T) {
	s, server := newLoopback(t, SmallestPacketSize)
	client := runClient(t, s)
	if n := client.MaxPacketSize(); n < 1161 {
		t.Errorf("limit %d at the start", n)
	}
	for client.MaxPacketSize() < MinIPv6PacketSize || server.MaxPacketSize() < MinIPv6PacketSize {
		if _, err := client.Ping(t.Context(), 0); err != nil { // gives the search its round trips
			t.Fatal(err)
		}
	}
	n := client.MaxPacketSize()
	if err := client.SendPacket(packetOf(4, n)); err != nil && client.MaxPacketSize() >= n {
		t.Errorf("packet of %d bytes: %v", n, err)
	}
	if got, err := server.ReceivePacket(t.Context()); err != nil || len(got) != n {
		t.Errorf("received %d bytes, %v", len(got), err)
	}
}

func TestConnectionLossIsNotOrderly(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	for _, c := range []struct {
		code    quic.ApplicationErrorCode
		orderly bool
	}{{CodeRestart, false}, {quic.ApplicationErrorCode(http3.ErrCodeNoError), true}} {
		g := &gateway{}
		addr := serveHTTP3(t, NewServer(newGateway(t, HandlerConfig[string]{}, g)), serverTLS)
		conn, err := dialQUIC(t, addr, clientTLS, PreferredPacketSize)
		if err != nil {
			t.Fatal(err)
		}
		s, _, err := Dial(t.Context(), conn, Request{Authority: addr.String(), Header: bearer})
		if err != nil {
			t.Fatal(err)
		}
		client, server := runClient(t, s), <-g.sessions
		if err := conn.CloseWithError(c.code, ""); err != nil {
			t.Fatal(err)
		}
		err = <-server.result
		var app *quic.ApplicationError
		if errors.Is(err, ErrPeerClosed) != c.orderly ||
			!c.orderly && (!errors.As(err, &app) || app.ErrorCode != c.code) {
			t.Errorf("code %#x: server: %v", uint64(c.code), err)
		}
		if err := <-client.result; err == nil || errors.Is(err, ErrPeerClosed) {
			t.Errorf("code %#x: client: %v", uint64(c.code), err)
		}
		if err := client.SendPacket(packetOf(4, 20)); !errors.Is(err, ErrClosed) {
			t.Errorf("packet after the end: %v", err)
		}
	}
}

func BenchmarkLoopback(b *testing.B) {
	s, server := newLoopback(b, PreferredPacketSize)
	client := runClient(b, s)
	for _, size := range []int{100, MinIPv6PacketSize} {
		b.Run(strconv.Itoa(size)+"B", func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			received := make(chan int, 1)
			go func() {
				n := 0
				for {
					if _, err := server.ReceivePacket(ctx); err != nil {
						received <- n
						return
					}
					n++
				}
			}()
			p := packetOf(6, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := client.SendPacket(p); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := client.Ping(ctx, 0); err != nil { // behind the last packet
				b.Fatal(err)
			}
			cancel()
			b.ReportMetric(100*(1-float64(<-received)/float64(b.N)), "%lost")
		})
	}
}

package masque

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"testing"

	connectip "github.com/quic-go/connect-ip-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

// udpPacket makes a packet connect-ip-go lets through: it checks addresses, lowers
// the hop limit and recomputes the IPv4 checksum.
func udpPacket(src, dst string, n int) []byte {
	from, to := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	if from.Is4() {
		p := packetOf(4, n)
		p[6], p[7], p[8], p[9] = 0, 0, 64, 17
		copy(p[12:], from.AsSlice())
		copy(p[16:], to.AsSlice())
		p[10], p[11] = 0, 0
		var sum uint32
		for i := 0; i < 20; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
		return p
	}
	p := packetOf(6, n)
	p[6], p[7] = 17, 64
	copy(p[8:], from.AsSlice())
	copy(p[24:], to.AsSlice())
	return p
}

// sameButHop compares packets but for hop limit and IPv4 header checksum.
func sameButHop(a, b []byte) bool {
	mask := func(p []byte) []byte {
		p = bytes.Clone(p)
		if len(p) < 20 {
			return p
		}
		if p[0]>>4 == 4 {
			p[8], p[10], p[11] = 0, 0, 0
		} else {
			p[7] = 0
		}
		return p
	}
	return bytes.Equal(mask(a), mask(b))
}

// exchange sends packets both ways between our session and connect-ip-go's.
func exchange(t *testing.T, ours *Session, theirs *connectip.Conn, us, them []string) {
	t.Helper()
	b := make([]byte, 2000)
	for i := range us {
		for _, n := range []int{60, 1280} {
			out := udpPacket(us[i], them[i], n)
			if err := ours.SendPacket(out); err != nil {
				t.Fatalf("we send %d bytes: %v", n, err)
			}
			got, err := theirs.ReadPacket(b)
			if err != nil || !sameButHop(b[:got], out) {
				t.Fatalf("they received %x, %v; want %x", b[:got], err, out)
			}
			back := udpPacket(them[i], us[i], n)
			sent := bytes.Clone(back)
			if icmp, err := theirs.WritePacket(back); err != nil || icmp != nil {
				t.Fatalf("they send %d bytes: %x, %v", n, icmp, err)
			}
			p, err := ours.ReceivePacket(t.Context())
			if err != nil || !sameButHop(p, sent) {
				t.Fatalf("we received %x, %v; want %x", p, err, sent)
			}
		}
	}
}

// connect-ip-go's client, admitted with a bearer token, gets addresses and routes
// from our server and exchanges packets with it.
func TestInteropConnectIPGoClient(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	owned := []string{"100.64.0.2/32", "fd00::2/128"}
	g := &gateway{owned: owned, routes: []string{"192.0.2.0/24", "2001:db8::/32"}}
	addr := serveHTTP3(t, NewServer(newGateway(t, HandlerConfig[string]{}, g)), serverTLS)
	template := uritemplate.MustNew(fmt.Sprintf("https://%s%s", addr, Path))
	req, err := connectip.NewRequest(t.Context(), template)
	if err != nil {
		t.Fatal(err)
	}

	// Without the token it is turned away.
	transport := &connectip.Transport{TLSClientConfig: clientTLS}
	_, rsp, err := transport.Dial(req)
	if err == nil || rsp == nil || rsp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("without a token: %v, %v", rsp, err)
	}
	req.Header().Set("Authorization", "Bearer open sesame")
	theirs, rsp, err := transport.Dial(req)
	if err != nil || rsp.StatusCode != http.StatusOK {
		t.Fatalf("dial: %v, %v", rsp, err)
	}
	ours := <-g.sessions

	first, err := theirs.ReceiveAddressAssignment(t.Context())
	if err != nil || len(first) != 2 || first[0].IPPrefix != prefixes(owned...)[0] {
		t.Fatalf("assigned %v, %v", first, err)
	}
	ids, err := theirs.RequestAddresses(prefixes("::/128", "0.0.0.0/32", "0.0.0.0/32"))
	if err != nil {
		t.Fatal(err)
	}
	if r := next[AddressRequest](t, ours); len(r.Requests) != 3 {
		t.Errorf("request %v", r)
	}
	second, err := theirs.ReceiveAddressAssignment(t.Context())
	if err != nil || len(second) != 3 || second[0].RequestID != ids[1] || second[1].RequestID != ids[0] ||
		second[2].RequestID != ids[2] || !second[2].Rejected() {
		t.Fatalf("assigned %v, %v", second, err)
	}
	routes, err := theirs.Routes(t.Context())
	if err != nil || len(routes) != 2 || !slices.Equal(routes[0].Prefixes(), prefixes("192.0.2.0/24")) {
		t.Fatalf("routes %v, %v", routes, err)
	}

	exchange(t, ours.Session, theirs, []string{"192.0.2.9", "2001:db8::9"}, []string{"100.64.0.2", "fd00::2"})

	// It advertises a network of its own, and ignores what it does not know.
	lan := connectip.IPRoute{
		StartIP: netip.MustParseAddr("10.9.0.0"), EndIP: netip.MustParseAddr("10.9.255.255"),
	}
	if err := theirs.AdvertiseRoute([]connectip.IPRoute{lan}); err != nil {
		t.Fatal(err)
	}
	if r := next[RouteAdvertisement](t, ours); len(r.Ranges) != 1 || r.Ranges[0].Start != lan.StartIP {
		t.Errorf("routes %v", r)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errRunning)
	if _, err := ours.Ping(ctx, 0); !errors.Is(err, errRunning) {
		t.Errorf("ping to a peer that knows none: %v", err)
	}
	if err := ours.AdvertiseRoutes(prefixes("0.0.0.0/0")); err != nil {
		t.Fatal(err)
	}
	if routes, err = theirs.Routes(t.Context()); err != nil || len(routes) != 1 {
		t.Errorf("routes %v, %v", routes, err)
	}
	if err := theirs.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	<-ours.result
}

// Our client gets addresses and routes from connect-ip-go's proxy and exchanges
// packets with it.
func TestInteropConnectIPGoProxy(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	socket := listenUDP(t)
	template := uritemplate.MustNew(fmt.Sprintf("https://%s%s", socket.LocalAddr(), Path))
	accepted := make(chan *connectip.Conn, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/masque/ip/", func(w http.ResponseWriter, r *http.Request) {
		proxied, err := connectip.ParseProxyRequest(r, template)
		if err != nil {
			t.Errorf("parse request: %v", err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if r.Header.Get("Authorization") != "Bearer open sesame" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		conn, err := (&connectip.Proxy{}).Proxy(w, proxied)
		if err != nil {
			t.Errorf("proxy: %v", err)
			return
		}
		accepted <- conn
	})
	server := &http3.Server{
		Handler: mux, TLSConfig: serverTLS, EnableDatagrams: true,
		QUICConfig: &quic.Config{InitialPacketSize: PreferredPacketSize, EnableDatagrams: true},
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(socket)
	}()
	t.Cleanup(func() { _ = server.Close(); <-served })

	s, err := dialProxy(t, socket.LocalAddr(), clientTLS, nil)
	var refused *StatusError
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusUnauthorized {
		t.Fatalf("without a token: %v, %v", s, err)
	}
	if s, err = dialProxy(t, socket.LocalAddr(), clientTLS, bearer); err != nil {
		t.Fatal(err)
	}
	ours, theirs := runClient(t, s), <-accepted

	// A client always asks for an address of each family.
	request, err := theirs.ReceiveAddressRequest(t.Context())
	if err != nil || !slices.Equal(request.Prefixes, prefixes("0.0.0.0/32", "::/128")) {
		t.Fatalf("request %v, %v", request, err)
	}
	if err := request.Respond(prefixes("100.64.0.2/32", "fd00::2/128"), prefixes("100.64.7.0/24")); err != nil {
		t.Fatal(err)
	}
	want := prefixes("100.64.0.2/32", "fd00::2/128", "100.64.7.0/24")
	a := next[AddressAssignment](t, ours)
	if !slices.Equal(a.Prefixes(), want) || a.Addresses[0].RequestID == 0 {
		t.Errorf("assigned %v", a)
	}
	if err := theirs.AdvertiseRoute([]connectip.IPRoute{
		{StartIP: netip.MustParseAddr("192.0.2.0"), EndIP: netip.MustParseAddr("192.0.2.255")},
		{StartIP: netip.MustParseAddr("2001:db8::"), EndIP: netip.MustParseAddr("2001:db8::ffff")},
	}); err != nil {
		t.Fatal(err)
	}
	r := next[RouteAdvertisement](t, ours)
	p, err := RangesToPrefixes(r.Ranges, 10)
	if err != nil || !slices.Equal(p, prefixes("192.0.2.0/24", "2001:db8::/112")) {
		t.Errorf("routes %v, %v", p, err)
	}
	// Our routes and assignments are taken, in one piece.
	if err := ours.AdvertiseRoutes(prefixes("10.9.0.0/16", "fd00:9::/32", "10.8.0.0/16")); err != nil {
		t.Fatal(err)
	}
	routes, err := theirs.Routes(t.Context())
	if err != nil || len(routes) != 2 || routes[0].StartIP != netip.MustParseAddr("10.8.0.0") {
		t.Fatalf("they got routes %v, %v", routes, err)
	}
	theirPrefixes := prefixes("192.0.2.0/24", "2001:db8::/112")
	if err := ours.AssignAddresses(Assign(theirPrefixes, AddressRequest{})); err != nil {
		t.Fatal(err)
	}
	if a, err := theirs.ReceiveAddressAssignment(t.Context()); err != nil || len(a) != 2 {
		t.Fatalf("they were assigned %v, %v", a, err)
	}

	exchange(t, ours.Session, theirs, []string{"100.64.0.2", "fd00::2", "100.64.7.5"},
		[]string{"192.0.2.9", "2001:db8::9", "192.0.2.10"})

	if err := theirs.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := <-ours.result; !errors.Is(err, ErrPeerClosed) {
		t.Errorf("ended with %v", err)
	}
}

// dialProxy makes a connection and asks for a session on it.
func dialProxy(t *testing.T, to net.Addr, clientTLS *tls.Config, header http.Header) (*Session, error) {
	t.Helper()
	conn, err := dialQUIC(t, to, clientTLS, PreferredPacketSize)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := Dial(t.Context(), conn, Request{Authority: to.String(), Header: header})
	return s, err
}

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"testing"

	connectip "github.com/quic-go/connect-ip-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"github.com/aethertunnel/aethertunnel/control/api"
)

// A CONNECT-IP client of another make gets in with nothing but what `invite --stock` prints, trusts the
// gateway by the usual rules of TLS, and is held to its address as everybody is.
func TestAStockClientGetsInByItsInvite(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	gateway := gatewayUp(g)
	var invite api.Invite
	if err := json.Unmarshal([]byte(gateway.verb("invite", "--stock", "--json")), &invite); err != nil {
		t.Fatal(err)
	}
	conn := dialStock(t, l, invite)
	assigned, err := conn.ReceiveAddressAssignment(within(t, patience))
	if err != nil || len(assigned) != 2 {
		t.Fatalf("assigned %v, %v", assigned, err)
	}
	routes, err := conn.Routes(within(t, patience))
	if err != nil || len(routes) != 2 {
		t.Fatalf("routes %v, %v", routes, err)
	}
	own := assigned[0].IPPrefix.Addr()
	if !own.Is4() {
		own = assigned[1].IPPrefix.Addr()
	}
	hub := gateway.address4()
	answer := exchangeEcho(t, conn, echoPacket(t, own, hub))
	if from, to := addressesIn(answer); from != hub || to != own || answer[20] != byte(ipv4.ICMPTypeEchoReply) {
		t.Fatalf("the answer is %x", answer)
	}
	p := gateway.status().Peers[0]
	if !p.Connected || p.Authentication == "" {
		t.Errorf("the gateway does not tell a stock client apart: %+v", p)
	}

	// It has one address, and what it sends from another goes nowhere: it is told so, by the gateway.
	before := gateway.status().Drops["source_not_assigned"]
	foreign := netip.MustParseAddr("10.77.0.99")
	sneak(t, conn, echoPacket(t, foreign, hub))
	gateway.awaitStatus("counting the drop", func(s api.Status) bool {
		return s.Drops["source_not_assigned"] > before
	})

	// Revoked, it is gone.
	gateway.verb("nodes", "revoke", p.Name)
	buffer := make([]byte, 1500)
	for {
		if _, err := conn.ReadPacket(buffer); err != nil {
			return
		}
	}
}

// dialStock connects a client as any user of connect-ip-go would.
func dialStock(t *testing.T, m *machine, invite api.Invite) *connectip.Conn {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(invite.CACertificate)) {
		t.Fatalf("no certificate in %q", invite.CACertificate)
	}
	socket, err := m.ListenUDP("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	transport := &quic.Transport{Conn: socket}
	t.Cleanup(func() {
		_ = transport.Close() // the connection may be gone already
		_ = socket.Close()
	})
	stock := &connectip.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, NextProtos: []string{http3.NextProtoH3}},
		QUICConfig:      &quic.Config{EnableDatagrams: true, InitialPacketSize: 1400},
		DialAddr: func(ctx context.Context, addr string, c *tls.Config, q *quic.Config) (*quic.Conn, error) {
			to, err := net.ResolveUDPAddr("udp", addr)
			if err != nil {
				return nil, err
			}
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			c = c.Clone()
			c.ServerName = host
			return transport.Dial(ctx, to, c, q)
		},
	}
	template, err := uritemplate.New(invite.URL)
	if err != nil {
		t.Fatal(err)
	}
	request, err := connectip.NewRequest(within(t, patience), template)
	if err != nil {
		t.Fatal(err)
	}
	request.Header().Set("Authorization", invite.Authorization)
	conn, response, err := stock.Dial(request)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("the stock client does not get in: %v, %v", response, err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // it may be revoked already
	return conn
}

// exchangeEcho sends a packet and returns the next one that comes.
func exchangeEcho(t *testing.T, conn *connectip.Conn, packet []byte) []byte {
	t.Helper()
	if problem, err := conn.WritePacket(packet); err != nil || problem != nil {
		t.Fatalf("send: %x, %v", problem, err)
	}
	buffer := make([]byte, 1500)
	n, err := conn.ReadPacket(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return buffer[:n]
}

// sneak sends a packet whose source is not ours. connect-ip-go lets it out once the source is in a route that
// we advertise.
func sneak(t *testing.T, conn *connectip.Conn, packet []byte) {
	t.Helper()
	from, _ := addressesIn(packet)
	if err := conn.AdvertiseRoute([]connectip.IPRoute{{StartIP: from, EndIP: from}}); err != nil {
		t.Fatal(err)
	}
	if problem, err := conn.WritePacket(packet); err != nil || problem != nil {
		t.Fatalf("the client does not let it out: %x, %v", problem, err)
	}
}

// addressesIn returns the source and destination of an IPv4 packet.
func addressesIn(packet []byte) (from, to netip.Addr) {
	return netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
}

// echoPacket makes an ICMP echo request.
func echoPacket(t *testing.T, from, to netip.Addr) []byte {
	t.Helper()
	message := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 7, Seq: 1, Data: []byte(marker)}}
	body, err := message.Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	packet := make([]byte, 20, 20+len(body))
	packet[0], packet[8], packet[9] = 0x45, 64, 1
	binary.BigEndian.PutUint16(packet[2:], uint16(20+len(body)))
	copy(packet[12:], from.AsSlice())
	copy(packet[16:], to.AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum))
	return append(packet, body...)
}

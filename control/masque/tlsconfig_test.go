package masque

import (
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/quic-go/quic-go"
)

func TestTLSConfig(t *testing.T) {
	base := &tls.Config{ServerName: "x", NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS10}
	c := TLSConfig(base, RequireHybrid)
	if c.ServerName != "x" || !slices.Equal(c.NextProtos, []string{"h3"}) ||
		c.MinVersion != tls.VersionTLS13 || c.MaxVersion != tls.VersionTLS13 ||
		!slices.Equal(c.CurvePreferences, []tls.CurveID{tls.X25519MLKEM768}) {
		t.Errorf("config %+v", c)
	}
	if base.NextProtos[0] != "http/1.1" || base.MinVersion != tls.VersionTLS10 {
		t.Error("the argument was changed")
	}
	if TLSConfig(nil, AllowClassical).CurvePreferences[0] != tls.X25519MLKEM768 {
		t.Error("the hybrid group is not first")
	}
	if NegotiatedGroup(tls.ConnectionState{}) != "" {
		t.Error("a group before the handshake")
	}
}

// A side that requires the hybrid group has no connection without it.
func TestKeyExchangePolicy(t *testing.T) {
	for name, c := range map[string]struct {
		server KeyExchange
		client []tls.CurveID
		want   tls.CurveID // 0 for a failed handshake
	}{
		"both hybrid":        {RequireHybrid, []tls.CurveID{tls.X25519MLKEM768}, tls.X25519MLKEM768},
		"classical refused":  {RequireHybrid, []tls.CurveID{tls.X25519, tls.CurveP256}, 0},
		"classical allowed":  {AllowClassical, []tls.CurveID{tls.CurveP256}, tls.CurveP256},
		"hybrid preferred":   {AllowClassical, []tls.CurveID{tls.X25519, tls.X25519MLKEM768}, tls.X25519MLKEM768},
		"other hybrid group": {RequireHybrid, []tls.CurveID{tls.SecP256r1MLKEM768}, 0},
	} {
		serverTLS, clientTLS := testTLS(t, c.server)
		clientTLS.CurvePreferences = c.client
		addr := serveHTTP3(t, NewServer(http.NotFoundHandler()), serverTLS)
		conn, err := dialQUIC(t, addr, clientTLS, PreferredPacketSize)
		if c.want == 0 {
			var refused *quic.TransportError
			if !errors.As(err, &refused) || !refused.ErrorCode.IsCryptoError() {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := conn.ConnectionState().TLS; got.CurveID != c.want || NegotiatedGroup(got) != c.want.String() ||
			Hybrid(got.CurveID) != (c.want == tls.X25519MLKEM768) {
			t.Errorf("%s: negotiated %s", name, NegotiatedGroup(got))
		}
	}
}

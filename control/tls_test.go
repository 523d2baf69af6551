package control

import (
	"crypto/tls"
	"testing"
)

func TestKeyExchangeNamesClassicalSessions(t *testing.T) {
	for group, want := range map[tls.CurveID]string{
		tls.X25519MLKEM768: "X25519MLKEM768", tls.X25519: "X25519 (classical)", tls.CurveP256: "CurveP256 (classical)",
	} {
		if got := keyExchange(tls.ConnectionState{CurveID: group}); got != want {
			t.Errorf("%v: %q, want %q", group, got, want)
		}
	}
}

package masque

import (
	"crypto/tls"

	"github.com/quic-go/quic-go/http3"
)

// KeyExchange is a policy on the key exchange of the TLS handshake. The zero value
// requires a post-quantum one.
type KeyExchange int

const (
	// RequireHybrid allows X25519MLKEM768 only.
	RequireHybrid KeyExchange = iota
	// AllowClassical offers X25519MLKEM768 first and takes X25519 or P-256 from peers
	// that lack it. Such a session is open to whoever records it today.
	AllowClassical
)

// groups returns the TLS groups the policy allows, best first.
func (k KeyExchange) groups() []tls.CurveID {
	if k == AllowClassical {
		return []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256}
	}
	return []tls.CurveID{tls.X25519MLKEM768}
}

// Hybrid reports whether a group mixes a post-quantum secret in.
func Hybrid(group tls.CurveID) bool {
	return group == tls.X25519MLKEM768 || group == tls.SecP256r1MLKEM768 || group == tls.SecP384r1MLKEM1024
}

// TLSConfig returns a copy of base with what both ends of a session need: TLS 1.3
// only, ALPN h3, and the groups of the policy.
func TLSConfig(base *tls.Config, policy KeyExchange) *tls.Config {
	c := &tls.Config{}
	if base != nil {
		c = base.Clone()
	}
	c.MinVersion, c.MaxVersion = tls.VersionTLS13, tls.VersionTLS13
	c.NextProtos = []string{http3.NextProtoH3}
	c.CurvePreferences = policy.groups()
	return c
}

// NegotiatedGroup names the group of a finished handshake, for example
// "X25519MLKEM768", or "" before the end of the handshake.
func NegotiatedGroup(state tls.ConnectionState) string {
	if state.CurveID == 0 {
		return ""
	}
	return state.CurveID.String()
}

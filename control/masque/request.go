package masque

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Protocol is the value of the :protocol pseudo-header field (RFC 9484 section 4.4).
const Protocol = "connect-ip"

// Path is where the server takes requests: the default template of RFC 9484
// section 3 with both variables unscoped.
const Path = pathPrefix + "*/*/"

const (
	pathPrefix = "/.well-known/masque/ip/"

	capsuleProtocolHeader = "Capsule-Protocol"
	capsuleProtocolValue  = "?1"
)

// isConnectIP reports whether r is a CONNECT-IP request for any target under the
// well-known path.
func isConnectIP(r *http.Request) bool {
	return r.Method == http.MethodConnect && r.Proto == Protocol &&
		strings.HasPrefix(r.URL.EscapedPath(), pathPrefix)
}

// checkScope accepts the unscoped path in any spelling and returns the status to
// refuse another one with: 403 for a scope that is well formed, since nothing but
// the whole tunnel is offered, 400 for one that is not (RFC 9484 section 4.6).
func checkScope(u *url.URL) (status int, err error) {
	segments := strings.Split(strings.TrimPrefix(u.EscapedPath(), pathPrefix), "/")
	if len(segments) == 3 && segments[2] == "" {
		segments = segments[:2]
	}
	if len(segments) != 2 || u.RawQuery != "" {
		return http.StatusBadRequest, fmt.Errorf("path %q does not follow %s{target}/{ipproto}/",
			u.EscapedPath(), pathPrefix)
	}
	target, err := url.PathUnescape(segments[0])
	if err != nil || !validTarget(target) {
		return http.StatusBadRequest, fmt.Errorf("malformed target %q", segments[0])
	}
	protocol, err := url.PathUnescape(segments[1])
	if err != nil || !validProtocol(protocol) {
		return http.StatusBadRequest, fmt.Errorf("malformed ipproto %q", segments[1])
	}
	if target != "*" || protocol != "*" {
		return http.StatusForbidden, fmt.Errorf("scoped to target %q and protocol %q", target, protocol)
	}
	return 0, nil
}

// validTarget reports whether s is a target variable: "*", a prefix with its low
// bits zero, an address, or a host name.
func validTarget(s string) bool {
	if s == "*" {
		return true
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Zone() == ""
	}
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return err == nil && p == p.Masked()
	}
	return s != "" && len(s) <= 253 && !strings.ContainsAny(s, ":%[]@?# ")
}

// validProtocol reports whether s is an ipproto variable: "*" or 0 to 255.
func validProtocol(s string) bool {
	if s == "*" {
		return true
	}
	n, err := strconv.ParseUint(s, 10, 8)
	return err == nil && n <= 255 && len(s) <= 3
}

// canonicalAuthority brings an authority into the form in which two of the same
// meaning are equal: lower case, without the default port, addresses in their
// shortest form.
func canonicalAuthority(authority string) string {
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(authority, "["), "]"), "443"
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.Unmap().String()
	}
	return net.JoinHostPort(strings.ToLower(strings.TrimSuffix(host, ".")), port)
}

package config

import (
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// PortMapping says whether a gateway asks its router to forward the listening port.
type PortMapping string

// The values of gateway.port_mapping.
const (
	PortMappingAuto PortMapping = "auto" // ask through PCP, NAT-PMP and UPnP IGD
	PortMappingOff  PortMapping = "off"  // never ask
)

// KeyExchange is the rule for the key exchange of a session.
type KeyExchange string

// The values of tls.key_exchange.
const (
	// RequireHybrid refuses a session without a post-quantum secret.
	RequireHybrid KeyExchange = "require-hybrid"
	// PreferHybrid admits a classical session, which the status then shows as such.
	PreferHybrid KeyExchange = "prefer-hybrid"
)

// LogLevel is the least severe level that is written.
type LogLevel string

// The values of log.level.
const (
	LevelDebug LogLevel = "debug"
	LevelInfo  LogLevel = "info"
	LevelWarn  LogLevel = "warn"
	LevelError LogLevel = "error"
)

// Slog gives the level in the standard library's scale; an unknown one counts as info.
func (l LogLevel) Slog() slog.Level {
	switch l {
	case LevelDebug:
		return slog.LevelDebug
	case LevelWarn:
		return slog.LevelWarn
	case LevelError:
		return slog.LevelError
	case LevelInfo:
	}
	return slog.LevelInfo
}

// LogFormat is the form of the log.
type LogFormat string

// The values of log.format.
const (
	FormatAuto LogFormat = "auto" // coloured text on a terminal, plain text otherwise
	FormatText LogFormat = "text"
	FormatJSON LogFormat = "json"
)

// ListenAddr is a UDP address to listen on. An Addr that is not valid means all addresses of both families.
type ListenAddr struct {
	Addr netip.Addr
	Port uint16
}

// String gives "addr:port", with an IPv6 address in brackets, and ":port" for all addresses.
func (l ListenAddr) String() string {
	if !l.Addr.IsValid() {
		return ":" + strconv.Itoa(int(l.Port))
	}
	return netip.AddrPortFrom(l.Addr, l.Port).String()
}

// covers reports whether a socket on l would also claim packets to o.
func (l ListenAddr) covers(o ListenAddr) bool {
	switch {
	case l.Port != o.Port:
		return false
	case !l.Addr.IsValid() || l.Addr == o.Addr:
		return true
	}
	return l.Addr.IsUnspecified() && o.Addr.IsValid() && l.Addr.Is4() == o.Addr.Is4()
}

// HostPort is an address under which others reach this gateway. Host is an IP address without brackets or a
// DNS name, which dialers resolve anew at every connect.
type HostPort struct {
	Host string
	Port uint16
}

// String gives "host:port", with an IPv6 address in brackets.
func (h HostPort) String() string { return net.JoinHostPort(h.Host, strconv.Itoa(int(h.Port))) }

// NodeName makes a valid node name from a host name: the first label in lower case, other characters replaced
// by hyphens, cut to 63 bytes; "node" when nothing is left.
func NodeName(host string) string {
	label, _, _ := strings.Cut(strings.ToLower(host), ".")
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, label)
	name = strings.Trim(name, "-")
	if len(name) > maxNameBytes {
		name = strings.TrimRight(name[:maxNameBytes], "-")
	}
	if name == "" {
		return "node"
	}
	return name
}

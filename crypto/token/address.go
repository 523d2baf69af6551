package token

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	maxHostName = 253 // RFC 1035 section 2.3.4, without the trailing dot
	maxLabel    = 63
)

// ParseAddress checks HOST:PORT and returns its one canonical form: names and hexadecimal digits in lower
// case, IP addresses as RFC 5952 writes them, IPv6 in brackets. HOST is a DNS name of letters, digits and
// hyphens (internationalised ones in their xn-- form) or an IP address that a packet can be sent to; zones
// are refused, since they mean something on one machine only. PORT is 1 to 65535. Errors: [ErrAddress],
// naming the address.
func ParseAddress(text string) (string, error) {
	if len(text) > maxHostName+len(":65535") {
		return "", fmt.Errorf("%w: %.40q… is too long", ErrAddress, text)
	}
	host, port, ok := splitAddress(text)
	if !ok {
		return "", fmt.Errorf("%w: %q is not HOST:PORT", ErrAddress, text)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 || port[0] == '0' || port[0] == '+' {
		return "", fmt.Errorf("%w: %q has no port between 1 and 65535", ErrAddress, text)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return joinIP(text, ip, uint16(number))
	}
	host = strings.ToLower(host)
	if text[0] == '[' || !isHostName(host) {
		return "", fmt.Errorf("%w: %q has neither a DNS name nor an IP address before the port", ErrAddress, text)
	}
	return host + ":" + port, nil
}

// splitAddress cuts at the last colon. An IPv6 address must be in brackets, anything else must not.
func splitAddress(text string) (host, port string, ok bool) {
	at := strings.LastIndexByte(text, ':')
	if at <= 0 || at == len(text)-1 {
		return "", "", false
	}
	host, port = text[:at], text[at+1:]
	if inner, bracketed := strings.CutPrefix(host, "["); bracketed {
		inner, closed := strings.CutSuffix(inner, "]")
		return inner, port, closed && strings.Contains(inner, ":")
	}
	return host, port, !strings.Contains(host, ":")
}

func joinIP(text string, ip netip.Addr, port uint16) (string, error) {
	ip = ip.Unmap()
	if ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() ||
		ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return "", fmt.Errorf("%w: %q cannot be reached from another machine", ErrAddress, text)
	}
	return netip.AddrPortFrom(ip, port).String(), nil
}

// isHostName accepts lower-case names of RFC 1123 section 2.1. The last label may not be a number, since then
// the name would be read as an IPv4 address by some and as a name by others.
func isHostName(host string) bool {
	if host == "" || len(host) > maxHostName {
		return false
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if !isLabel(label) {
			return false
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

func isLabel(label string) bool {
	if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		c := label[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

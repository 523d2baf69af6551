package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// The sizes a network may have: room for a gateway and some members, not more than a sane share of the space.
const (
	minNetworkBits4, maxNetworkBits4 = 8, 29
	minNetworkBits6, maxNetworkBits6 = 32, 120
)

func parseListen(text string) (ListenAddr, *fault) {
	const remedy = `write addr:port, for example ":443", "192.0.2.1:443" or "[2001:db8::1]:443"`
	host, portText, err := net.SplitHostPort(text)
	if err != nil {
		return ListenAddr{}, &fault{
			message: fmt.Sprintf("%q is not an address with a port", shorten(text)), remedy: remedy,
		}
	}
	port, f := parsePort(portText)
	if f != nil {
		return ListenAddr{}, f
	}
	if host == "" {
		return ListenAddr{Port: port}, nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return ListenAddr{}, &fault{message: fmt.Sprintf("%q is not an IP address", shorten(host)), remedy: remedy}
	}
	return ListenAddr{Addr: addr, Port: port}, nil
}

func parsePort(text string) (uint16, *fault) {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, &fault{
			message: fmt.Sprintf("%q is not a port", shorten(text)),
			remedy:  "use a number from 1 to 65535",
		}
	}
	return uint16(port), nil
}

func parseHostPort(text string) (HostPort, *fault) {
	const remedy = `write HOST:PORT, for example "vpn.example.org:443" or "[2001:db8::1]:443"`
	host, portText, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return HostPort{}, &fault{message: fmt.Sprintf("%q is not HOST:PORT", shorten(text)), remedy: remedy}
	}
	port, f := parsePort(portText)
	if f != nil {
		return HostPort{}, f
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return HostPort{Host: addr.String(), Port: port}, nil
	}
	if !validHost(host) {
		return HostPort{}, &fault{
			message: fmt.Sprintf("%q is neither an IP address nor a host name", shorten(host)), remedy: remedy,
		}
	}
	return HostPort{Host: host, Port: port}, nil
}

// validHost follows RFC 1123 section 2.1; a name whose last label is all digits would be a mistyped address.
func validHost(host string) bool {
	const maxHostBytes = 253
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for _, label := range labels {
		if label == "" || len(label) > maxNameBytes || strings.ContainsFunc(label, notHostRune) ||
			strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
	}
	_, err := strconv.ParseUint(labels[len(labels)-1], 10, 64)
	return err != nil && len(host) <= maxHostBytes
}

func parsePrefix(text string) (netip.Prefix, *fault) {
	p, err := netip.ParsePrefix(text)
	if err == nil {
		return p, nil
	}
	f := &fault{
		message: fmt.Sprintf("%q is not a prefix", shorten(text)),
		remedy:  `write ADDRESS/LENGTH, for example "192.168.1.0/24" or "fd12:3456:789a::/48"`,
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		f.remedy = fmt.Sprintf("add the length, for example %q for this address alone",
			netip.PrefixFrom(addr, addr.BitLen()))
	} else if strings.Contains(text, ",") {
		f.remedy = `write each prefix as a text of its own: ["first", "second"]`
	}
	return netip.Prefix{}, f
}

func checkListen(c *Config) []fault {
	list := c.Gateway.Listen
	if len(list) == 0 {
		return whole("is empty", `remove the key, or name an address such as ":443"`)
	}
	var faults []fault
	for i, l := range list {
		switch {
		case l.Port == 0:
			faults = append(faults, fault{element: i, message: "has port 0", remedy: "use a number from 1 to 65535"})
		case l.Addr.IsValid() && l.Addr.Is4In6():
			faults = append(faults, fault{
				element: i, message: fmt.Sprintf("%s is an IPv4 address in IPv6 form", l.Addr),
				remedy: fmt.Sprintf("write %q", ListenAddr{Addr: l.Addr.Unmap(), Port: l.Port}),
			})
		case l.Addr.IsValid() && l.Addr.IsMulticast():
			faults = append(faults, fault{
				element: i, message: fmt.Sprintf("%s is a multicast address", l.Addr),
				remedy: "use an address of this host",
			})
		}
		for _, earlier := range list[:i] {
			if earlier.covers(l) || l.covers(earlier) {
				faults = append(faults, fault{
					element: i, message: fmt.Sprintf("%s and %s claim the same packets", earlier, l),
					remedy: "keep one of them or use another port",
				})
				break
			}
		}
	}
	return faults
}

func checkAdvertise(c *Config) []fault {
	var faults []fault
	for i, h := range c.Gateway.Advertise {
		addr, err := netip.ParseAddr(h.Host)
		switch {
		case err == nil && (addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != ""):
			faults = append(faults, fault{
				element: i, message: fmt.Sprintf("%s is no address that others can reach", h.Host),
				remedy: "name the address or host name others use to reach this gateway",
			})
		case err != nil && !validHost(h.Host), h.Port == 0:
			faults = append(faults, fault{
				element: i, message: fmt.Sprintf("%q is not HOST:PORT", shorten(h.String())),
				remedy: `write for example "vpn.example.org:443"`,
			})
		}
		for _, earlier := range c.Gateway.Advertise[:i] {
			if strings.EqualFold(earlier.Host, h.Host) && earlier.Port == h.Port {
				faults = append(faults, fault{
					element: i, message: fmt.Sprintf("%s is given twice", h), remedy: "remove one of them",
				})
				break
			}
		}
	}
	return faults
}

func checkNetwork(c *Config) []fault {
	var faults []fault
	var have4, have6 bool
	for i, p := range c.Gateway.Network {
		if f, bad := prefixFault(p); bad {
			f.element = i
			faults = append(faults, f)
			continue
		}
		low, high, have, family := minNetworkBits6, maxNetworkBits6, &have6, "IPv6"
		if p.Addr().Is4() {
			low, high, have, family = minNetworkBits4, maxNetworkBits4, &have4, "IPv4"
		}
		if *have {
			faults = append(faults, fault{
				element: i, message: fmt.Sprintf("%s is a second %s prefix", p, family),
				remedy: "keep one prefix of each family",
			})
		}
		*have = true
		if p.Bits() < low || p.Bits() > high {
			faults = append(faults, fault{
				element: i, message: fmt.Sprintf("%s has an unsuitable size", p),
				remedy: fmt.Sprintf("use a length from /%d to /%d for %s", low, high, family),
			})
		}
	}
	return faults
}

func checkRoutes(c *Config) []fault {
	faults := overlaps(c.Routes.Advertise)
	for i, p := range c.Routes.Advertise {
		if f, bad := prefixFault(p); bad {
			f.element = i
			faults = append(faults, f)
		}
	}
	return faults
}

// prefixFault reports what makes a prefix unusable as a network or a route whatever its size.
func prefixFault(p netip.Prefix) (fault, bool) {
	switch {
	case !p.IsValid():
		return fault{message: "is not a prefix", remedy: `write for example "192.168.1.0/24"`}, true
	case p.Addr().Is4In6():
		return fault{
			message: fmt.Sprintf("%s is an IPv4 prefix in IPv6 form", p), remedy: "write it in IPv4 form",
		}, true
	case p != p.Masked():
		return fault{
			message: fmt.Sprintf("%s has bits set after its length", p),
			remedy:  fmt.Sprintf("write %q", p.Masked()),
		}, true
	case p.Bits() == 0:
		return fault{
			message: fmt.Sprintf("%s is the default route", p), remedy: "name the networks that are meant",
		}, true
	}
	for _, special := range specialPrefixes() {
		if special.Overlaps(p) {
			return fault{
				message: fmt.Sprintf("%s touches %s, which is never routed", p, special),
				remedy:  "use a prefix of ordinary unicast addresses",
			}, true
		}
	}
	return fault{}, false
}

// specialPrefixes lists what cannot be routed between hosts: "this network", loopback, link-local, multicast
// and reserved space (RFC 6890, RFC 5771, RFC 4291). Any half of the whole space touches one of them too.
func specialPrefixes() [10]netip.Prefix {
	return [...]netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("224.0.0.0/4"),
		netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("::/128"),
		netip.MustParsePrefix("::1/128"),
		netip.MustParsePrefix("::ffff:0:0/96"),
		netip.MustParsePrefix("fe80::/10"),
		netip.MustParsePrefix("ff00::/8"),
	}
}

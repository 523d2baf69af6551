package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// maxListElements bounds every list in the file.
	maxListElements = 256
	// maxNameBytes is the length of a DNS label, RFC 1035 section 2.3.4.
	maxNameBytes = 63
	// maxDeviceBytes is Linux's IFNAMSIZ without the final zero.
	maxDeviceBytes = 15
	// minMTU is what IPv6 needs, RFC 8200 section 5; maxMTU leaves 80 bytes of a 1500-byte path for the tunnel.
	minMTU, maxMTU = 1280, 1420
	// minNice and maxNice are what setpriority(2) takes. By default the daemon goes before ordinary programs, as the
	// kernel's own forwarding of packets does: what it moves for them waits for no turn of theirs.
	minNice, maxNice, defaultNice = -20, 19, -10
)

// Check reports every problem of the values in c, wherever they came from; none means that c can be used.
func (c Config) Check() []Problem {
	var problems []Problem
	for _, k := range keyTable() {
		for _, f := range k.check(&c) {
			f.key = k.name
			problems = append(problems, c.locate(f))
		}
	}
	for _, f := range checkTogether(&c) {
		problems = append(problems, c.locate(f))
	}
	return sortProblems(problems)
}

// Role is what a daemon will be, known only once the command and the state directory are known.
type Role uint8

// The two roles.
const (
	RoleGateway Role = iota + 1
	RoleMember
)

// CheckRole reports keys and flags that were set explicitly but contradict the role: a member neither listens
// nor owns the network's prefixes. Values left at their default are no contradiction.
func (c Config) CheckRole(role Role) []Problem {
	if role != RoleMember {
		return nil
	}
	var problems []Problem
	for _, k := range keyTable() {
		if _, set := c.sources[k.name]; set && k.gatewayOnly() {
			problems = append(problems, c.locate(fault{
				key: k.name, element: -1,
				message: "is a gateway's setting, but this node joins a network as a member",
				remedy:  "remove it, or give this node a --state directory of its own to make it a gateway",
			}))
		}
	}
	return sortProblems(problems)
}

// locate turns a fault into a problem with the place where its value was written.
func (c Config) locate(f fault) Problem {
	p := Problem{Key: f.key, Message: f.message, Remedy: f.remedy}
	s, ok := c.sources[f.key]
	switch {
	case !ok:
	case s.Flag != "":
		p.Key = s.Flag
	default:
		p.File, p.Line, p.Column = s.File, s.Line, s.Column
		if f.element >= 0 && f.element < len(s.elements) {
			p.Line, p.Column = s.elements[f.element].line, s.elements[f.element].column
		}
	}
	return p
}

func whole(message, remedy string) []fault {
	return []fault{{element: -1, message: message, remedy: remedy}}
}

func checkName(c *Config) []fault {
	name := c.Node.Name
	if name == "" {
		return nil
	}
	remedy := fmt.Sprintf("use 1 to %d letters, digits and hyphens, for example %q", maxNameBytes,
		NodeName(name))
	switch {
	case len(name) > maxNameBytes:
		return whole(fmt.Sprintf("has %d bytes, more than %d", len(name), maxNameBytes), remedy)
	case strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-"):
		return whole(fmt.Sprintf("%q begins or ends with a hyphen", name), remedy)
	case strings.ContainsFunc(name, notHostRune):
		return whole(fmt.Sprintf("%q has a character that host names cannot have", name), remedy)
	}
	return nil
}

func notHostRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
}

func checkState(c *Config) []fault {
	dir := c.Node.State
	remedy := fmt.Sprintf("name a directory from the root, for example %q", DefaultStateDir())
	switch {
	case dir == "":
		return whole("is empty", remedy)
	case strings.ContainsRune(dir, 0):
		return whole("has a zero byte", remedy)
	case !filepath.IsAbs(dir):
		return whole(fmt.Sprintf("%q is a relative path", shorten(dir)), remedy)
	case filepath.Dir(filepath.Clean(dir)) == filepath.Clean(dir):
		return whole(fmt.Sprintf("%q is the root of the file system", dir), remedy)
	}
	return nil
}

func checkTun(c *Config) []fault {
	name := c.Node.Tun
	if name == "" {
		return nil
	}
	remedy := fmt.Sprintf("use at most %d letters, digits, hyphens and underscores, for example \"aether0\"",
		maxDeviceBytes)
	switch {
	case len(name) > maxDeviceBytes:
		return whole(fmt.Sprintf("%q has %d bytes, more than the %d of a device name", shorten(name), len(name),
			maxDeviceBytes), remedy)
	case name == "." || name == "..":
		return whole(fmt.Sprintf("%q cannot be a device name", name), remedy)
	case slices.Contains([]string{"all", "default", "lo"}, name):
		// "all" and "default" are directories of their own beside the devices in /proc/sys/net/ipv4/conf.
		return whole(fmt.Sprintf("%q is reserved by the system", name), remedy)
	case strings.ContainsFunc(name, func(r rune) bool { return notHostRune(r) && r != '_' && r != '.' }):
		return whole(fmt.Sprintf("%q has a character that device names cannot have", name), remedy)
	}
	return nil
}

func checkMTU(c *Config) []fault {
	if mtu := c.Node.MTU; mtu != 0 && (mtu < minMTU || mtu > maxMTU) {
		return whole(fmt.Sprintf("%d is out of range", mtu),
			fmt.Sprintf("use %d to %d, or 0 for automatic", minMTU, maxMTU))
	}
	return nil
}

func checkNice(c *Config) []fault {
	if n := c.Node.Nice; n < minNice || n > maxNice {
		return whole(fmt.Sprintf("%d is out of range", n), fmt.Sprintf("use %d to %d", minNice, maxNice))
	}
	return nil
}

// checkTogether reports keys that are right alone but contradict each other.
func checkTogether(c *Config) []fault {
	var faults []fault
	for i, route := range c.Routes.Advertise {
		for _, network := range c.Gateway.Network {
			if route.IsValid() && network.IsValid() && route.Overlaps(network) {
				faults = append(faults, fault{
					key: "routes.advertise", element: i,
					message: fmt.Sprintf("%s overlaps %s of gateway.network", route, network),
					remedy:  "choose a network that none of the advertised routes contains",
				})
			}
		}
	}
	return faults
}

// overlaps reports members that repeat or overlap an earlier one; what is wrong by itself is left out, since
// a default route overlaps everything.
func overlaps(list []netip.Prefix) []fault {
	var faults []fault
	for i, p := range list {
		if _, bad := prefixFault(p); bad {
			continue
		}
		for _, earlier := range list[:i] {
			if _, bad := prefixFault(earlier); bad {
				continue
			}
			if earlier == p {
				faults = append(faults, fault{
					element: i, message: fmt.Sprintf("%s is given twice", p), remedy: "remove one of them",
				})
				break
			}
			if earlier.Overlaps(p) {
				faults = append(faults, fault{
					element: i, message: fmt.Sprintf("%s overlaps %s", p, earlier),
					remedy: "keep only the larger one, or make them disjoint",
				})
				break
			}
		}
	}
	return faults
}

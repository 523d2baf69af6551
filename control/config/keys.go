package config

import (
	"net/netip"
	"slices"
	"strings"
)

// Key documents one key of the file.
type Key struct {
	// Name is the dotted key, section first: "node.mtu".
	Name string
	// Type is "text", "number" or "list"; a list may also be written as one text.
	Type string
	// Default is the default in TOML notation.
	Default string
	// Flag is the name of the overriding flag without dashes, or empty.
	Flag string
	// Doc is one line for tables and for the flag's help.
	Doc string
	// GatewayOnly marks a key that has no meaning on a member.
	GatewayOnly bool
}

// Keys lists every key in the order of the example file.
func Keys() []Key {
	table, defaults := keyTable(), Default()
	keys := make([]Key, len(table))
	for i, k := range table {
		keys[i] = Key{
			Name: k.name, Type: k.kind.String(), Default: k.render(&defaults), Flag: k.flag, Doc: k.doc,
			GatewayOnly: k.gatewayOnly(),
		}
	}
	return keys
}

// kind is the TOML form of a value.
type kind uint8

const (
	kindText kind = iota
	kindNumber
	kindList
)

// String gives the word used in the documentation.
func (k kind) String() string { return [...]string{"text", "number", "list"}[k] }

// fault is a problem that does not know its place yet: key says which value, element which member of a list
// (-1 for the whole value).
type fault struct {
	key             string
	element         int
	message, remedy string
}

// keySpec is everything known about one key.
type keySpec struct {
	name string
	kind kind
	flag string
	doc  string
	// sample is a value in TOML notation for remedies and the example file.
	sample string
	// assign stores a value of the right form (string, int64 or []string) and reports what cannot be converted.
	assign func(*Config, any) []fault
	// render gives the current value in TOML notation.
	render func(*Config) string
	// check reports what is wrong with the current value.
	check func(*Config) []fault
}

func (k keySpec) section() string { s, _, _ := strings.Cut(k.name, "."); return s }

func (k keySpec) leaf() string { _, l, _ := strings.Cut(k.name, "."); return l }

func (k keySpec) gatewayOnly() bool { return k.section() == "gateway" }

// keyTable is the one list of keys; docs, example, flags, decoding and checks all walk it.
func keyTable() []keySpec {
	return slices.Concat(nodeKeys(), gatewayKeys(), []keySpec{
		listKey(keySpec{
			name: "routes.advertise", flag: "advertise-routes", sample: `["192.168.1.0/24"]`,
			doc: "networks behind this node that the others may reach through it",
		}, func(c *Config) *[]netip.Prefix { return &c.Routes.Advertise }, parsePrefix, checkRoutes),
		textKey(keySpec{
			name: "tls.key_exchange", flag: "key-exchange", sample: `"require-hybrid"`,
			doc: "post-quantum key exchange: require-hybrid, or prefer-hybrid to admit classical sessions too",
		}, func(c *Config) *KeyExchange { return &c.TLS.KeyExchange },
			oneOf(func(c *Config) KeyExchange { return c.TLS.KeyExchange }, RequireHybrid, PreferHybrid)),
		textKey(keySpec{
			name: "log.level", flag: "log-level", sample: `"info"`,
			doc: "least severe level that is logged: debug, info, warn or error",
		}, func(c *Config) *LogLevel { return &c.Log.Level },
			oneOf(func(c *Config) LogLevel { return c.Log.Level }, LevelDebug, LevelInfo, LevelWarn, LevelError)),
		textKey(keySpec{
			name: "log.format", flag: "log-format", sample: `"auto"`,
			doc: "form of the log: text, json, or auto for colours on a terminal",
		}, func(c *Config) *LogFormat { return &c.Log.Format },
			oneOf(func(c *Config) LogFormat { return c.Log.Format }, FormatAuto, FormatText, FormatJSON)),
	})
}

func nodeKeys() []keySpec {
	return []keySpec{
		textKey(keySpec{
			name: "node.name", flag: "name", sample: `"laptop"`,
			doc: "this node's name in the network (letters, digits, hyphens); empty = the host name",
		}, func(c *Config) *string { return &c.Node.Name }, checkName),
		textKey(keySpec{
			name: "node.state", flag: "state", sample: `"/var/lib/aetherd"`,
			doc: "directory for keys and data, private to aetherd; one daemon for each directory",
		}, func(c *Config) *string { return &c.Node.State }, checkState),
		textKey(keySpec{
			name: "node.tun", flag: "tun", sample: `"aether0"`,
			doc: "name of the tunnel device, at most 15 bytes; empty = the first free aether0, aether1, …",
		}, func(c *Config) *string { return &c.Node.Tun }, checkTun),
		numberKey(keySpec{
			name: "node.mtu", flag: "mtu", sample: `1420`,
			doc: "largest packet on the tunnel device, 1280 to 1420 bytes; 0 = automatic",
		}, func(c *Config) *int { return &c.Node.MTU }, checkMTU),
		numberKey(keySpec{
			name: "node.nice", flag: "nice", sample: `-10`,
			doc: "scheduling priority of the daemon on Linux, -20 (first) to 19; a system that does not allow it keeps its own",
		}, func(c *Config) *int { return &c.Node.Nice }, checkNice),
	}
}

func gatewayKeys() []keySpec {
	return []keySpec{
		listKey(keySpec{
			name: "gateway.listen", flag: "listen", sample: `[":443"]`,
			doc: "UDP addresses to listen on, as addr:port; \":443\" means every address",
		}, func(c *Config) *[]ListenAddr { return &c.Gateway.Listen }, parseListen, checkListen),
		listKey(keySpec{
			name: "gateway.advertise", flag: "advertise", sample: `["vpn.example.org:443"]`,
			doc: "HOST:PORT under which others reach this gateway; empty = every usable address found",
		}, func(c *Config) *[]HostPort { return &c.Gateway.Advertise }, parseHostPort, checkAdvertise),
		listKey(keySpec{
			name: "gateway.network", flag: "network", sample: `["100.80.0.0/16", "fd12:3456:789a::/48"]`,
			doc: "prefixes of a new network, at most one IPv4 and one IPv6; empty = chosen at first start",
		}, func(c *Config) *[]netip.Prefix { return &c.Gateway.Network }, parsePrefix, checkNetwork),
		textKey(keySpec{
			name: "gateway.port_mapping", flag: "port-mapping", sample: `"auto"`,
			doc: "ask the router to forward the port (PCP, NAT-PMP, UPnP IGD): auto or off",
		}, func(c *Config) *PortMapping { return &c.Gateway.PortMapping },
			oneOf(func(c *Config) PortMapping { return c.Gateway.PortMapping }, PortMappingAuto, PortMappingOff)),
	}
}

// findKey gives the entry for a dotted key.
func findKey(table []keySpec, name string) (keySpec, bool) {
	i := slices.IndexFunc(table, func(k keySpec) bool { return k.name == name })
	if i < 0 {
		return keySpec{}, false
	}
	return table[i], true
}

// sections lists the sections in file order.
func sections(table []keySpec) []string {
	var names []string
	for _, k := range table {
		if !slices.Contains(names, k.section()) {
			names = append(names, k.section())
		}
	}
	return names
}

package bench

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// rivalName is the program that --vs knows.
const rivalName = "wireguard-go"

// ParseVs reads what --vs says, such as "wireguard-go=/usr/local/bin/wireguard-go", and returns the absolute path of
// the program.
func ParseVs(text string) (string, error) {
	name, path, found := strings.Cut(text, "=")
	if name != rivalName || !found || path == "" {
		return "", fmt.Errorf("--vs %s: want %s=PATH, with the path of its binary", text, rivalName)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("--vs %s: %w", text, err)
	}
	return absolute, nil
}

// peerConfig is one end of a WireGuard tunnel with one peer.
type peerConfig struct {
	privateKey    []byte // X25519
	peerPublicKey []byte
	listenPort    uint16
	endpoint      netip.AddrPort // not valid at the end that waits
	allowed       []netip.Prefix
}

// uapi is the configuration as the cross-platform interface of WireGuard takes it
// (https://www.wireguard.com/xplatform/#configuration-protocol).
func (c peerConfig) uapi() string {
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s=%v\n", key, value) }
	line("set", 1) // the operation comes first
	line("private_key", hex.EncodeToString(c.privateKey))
	line("listen_port", c.listenPort)
	line("public_key", hex.EncodeToString(c.peerPublicKey))
	if c.endpoint.IsValid() {
		line("endpoint", c.endpoint)
	}
	for _, p := range c.allowed {
		line("allowed_ip", p)
	}
	b.WriteByte('\n')
	return b.String()
}

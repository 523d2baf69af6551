package bench

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

const (
	// rivalName is the program that --vs knows, and selfName what stands for this build once more.
	rivalName = "wireguard-go"
	selfName  = "self"
)

// Rival is what this build is measured beside. The zero value is nothing.
type Rival struct {
	Path string // of a wireguard-go, absolute
	Self bool   // this build once more, which shows how far apart equals come out
}

// ParseVs reads what --vs says: nothing, "self" or, say, "wireguard-go=/usr/local/bin/wireguard-go".
func ParseVs(text string) (Rival, error) {
	if text == "" {
		return Rival{}, nil
	}
	if text == selfName {
		return Rival{Self: true}, nil
	}
	name, path, found := strings.Cut(text, "=")
	if name != rivalName || !found || path == "" {
		return Rival{}, fmt.Errorf("--vs %s: want %s=PATH, with the path of its binary", text, rivalName)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return Rival{}, fmt.Errorf("--vs %s: %w", text, err)
	}
	return Rival{Path: absolute}, nil
}

// deviceConfig is one end of WireGuard tunnels.
type deviceConfig struct {
	privateKey []byte // X25519
	listenPort uint16
	peers      []peerConfig
}

// peerConfig is the other end of one.
type peerConfig struct {
	publicKey []byte
	endpoint  netip.AddrPort // not valid where the other end begins
	allowed   []netip.Prefix
}

// uapi is the configuration as the cross-platform interface of WireGuard takes it
// (https://www.wireguard.com/xplatform/#configuration-protocol).
func (c deviceConfig) uapi() string {
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s=%v\n", key, value) }
	line("set", 1) // the operation comes first
	line("private_key", hex.EncodeToString(c.privateKey))
	line("listen_port", c.listenPort)
	for _, p := range c.peers {
		line("public_key", hex.EncodeToString(p.publicKey))
		if p.endpoint.IsValid() {
			line("endpoint", p.endpoint)
		}
		for _, prefix := range p.allowed {
			line("allowed_ip", prefix)
		}
	}
	b.WriteByte('\n')
	return b.String()
}

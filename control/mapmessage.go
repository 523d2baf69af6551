package control

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// maxMapMessageBytes bounds what a peer may send in one map capsule.
const maxMapMessageBytes = 16 << 10

// maxMapEntries bounds each list in a map message.
const maxMapEntries = 256

// mapMessage is the body of a map capsule: what a gateway tells a member beyond RFC 9484. It is the whole state each
// time. Unknown fields are ignored, so that newer gateways can say more.
type mapMessage struct {
	// Network is the network's name.
	Network string `json:"network,omitempty"`
	// Node is the name that the gateway knows the member by.
	Node string `json:"node,omitempty"`
	// Gateway is the gateway's own name.
	Gateway string `json:"gateway,omitempty"`
	// Addresses are HOST:PORT under which the gateway can be reached now.
	Addresses []string `json:"addresses,omitempty"`
	// Prefixes are the prefixes that tunnel addresses come from.
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	// Granted are the member's offered routes that have been approved.
	Granted []netip.Prefix `json:"granted,omitempty"`
}

func (m mapMessage) encode() ([]byte, error) {
	m.Addresses = m.Addresses[:min(len(m.Addresses), maxMapEntries)]
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode map message: %w", err)
	}
	if len(b) > maxMapMessageBytes {
		return nil, fmt.Errorf("encode map message: %d bytes, limit %d", len(b), maxMapMessageBytes)
	}
	return b, nil
}

// decodeMapMessage reads a message of a peer that is authenticated but not trusted with our memory.
func decodeMapMessage(b []byte) (mapMessage, error) {
	var m mapMessage
	if len(b) > maxMapMessageBytes {
		return m, fmt.Errorf("map message of %d bytes, limit %d", len(b), maxMapMessageBytes)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return mapMessage{}, fmt.Errorf("decode map message: %w", err)
	}
	if len(m.Addresses) > maxMapEntries || len(m.Prefixes) > maxMapEntries || len(m.Granted) > maxMapEntries {
		return mapMessage{}, fmt.Errorf("map message with more than %d entries in a list", maxMapEntries)
	}
	notPrefix := func(p netip.Prefix) bool { return !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() }
	if slices.ContainsFunc(m.Prefixes, notPrefix) || slices.ContainsFunc(m.Granted, notPrefix) {
		return mapMessage{}, fmt.Errorf("map message with a malformed prefix")
	}
	return m, nil
}

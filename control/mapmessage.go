package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

// maxMapMessageBytes bounds what a peer may send in one map capsule.
const maxMapMessageBytes = 16 << 10

// maxMapEntries bounds each list in a map message.
const maxMapEntries = 256

var errMapEntries = fmt.Errorf("map message with more than %d entries in a list", maxMapEntries)

// mapMessage is the body of a map capsule: what a gateway and a member tell each other beyond RFC 9484. It is the whole
// state each time. Unknown fields are ignored, so that newer gateways can say more.
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
	// Routes are the ROUTE_ADVERTISEMENT's content as the operators wrote it.
	Routes []netip.Prefix `json:"routes,omitempty"`
	// Granted are the member's offered routes that have been approved.
	Granted []netip.Prefix `json:"granted,omitempty"`
	// Chain is the member's renewed certificate chain (DER, leaf first), when the old one nears its end.
	Chain [][]byte `json:"chain,omitempty"`
	// Offer goes the other way: the LANs behind a member, as its operator wrote them.
	Offer []netip.Prefix `json:"offer,omitempty"`
}

// encode leaves out the routes if they are too many: the ROUTE_ADVERTISEMENT says the same in other words, and nothing else
// may be lost for them.
func (m mapMessage) encode() ([]byte, error) {
	m.Addresses = m.Addresses[:min(len(m.Addresses), maxMapEntries)]
	if len(m.Routes) > maxMapEntries {
		m.Routes = nil
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode map message: %w", err)
	}
	if len(b) > maxMapMessageBytes && len(m.Routes) > 0 {
		m.Routes = nil
		return m.encode()
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
	if len(m.Addresses) > maxMapEntries || len(m.Chain) > maxMapEntries {
		return mapMessage{}, errMapEntries
	}
	for _, list := range [][]netip.Prefix{m.Prefixes, m.Routes, m.Granted, m.Offer} {
		if len(list) > maxMapEntries {
			return mapMessage{}, errMapEntries
		}
		if slices.ContainsFunc(list, func(p netip.Prefix) bool { return !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() }) {
			return mapMessage{}, errors.New("map message with a malformed prefix")
		}
	}
	for _, name := range []string{m.Network, m.Node, m.Gateway} {
		if name != "" && admit.SanitizeName(name, "") != name {
			return mapMessage{}, fmt.Errorf("map message with a malformed name %.80q", name)
		}
	}
	for _, a := range m.Addresses {
		if _, err := token.ParseAddress(a); err != nil {
			return mapMessage{}, fmt.Errorf("map message: %w", err)
		}
	}
	return m, nil
}

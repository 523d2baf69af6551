package daemon

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// certificateAge is how long a certificate is used before the authority is asked again whether it has to be renewed.
const certificateAge = time.Hour

// certificates holds the gateway's certificate. It names the hosts under which the gateway can be reached now: a stock
// client compares them with its URL (RFC 9110 section 4.3.4), while nodes of ours compare keys.
type certificates struct {
	authority *admit.Authority
	key       *identity.Private
	addresses func() []string // HOST:PORT

	mu      sync.Mutex // guards the rest
	hosts   []string
	made    time.Time
	current *tls.Certificate
}

// get is [tls.Config.GetCertificate].
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	var hosts []string
	for _, address := range c.addresses() {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("gateway certificate: %w", err)
		}
		hosts = append(hosts, host)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && slices.Equal(hosts, c.hosts) && now().Sub(c.made) < certificateAge {
		return c.current, nil
	}
	chain, err := c.authority.GatewayChain(hosts)
	if err != nil {
		return nil, fmt.Errorf("gateway certificate: %w", err)
	}
	c.current = &tls.Certificate{Certificate: chain, PrivateKey: c.key.Signer()}
	c.hosts, c.made = hosts, now()
	return c.current, nil
}

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

const (
	// certificateAge is how long a certificate is used before the authority is asked again whether it has to be renewed.
	certificateAge = time.Hour
	// certificateRetry is the pause after the authority could not replace a certificate that is still valid.
	certificateRetry = time.Minute
)

// certificates holds the gateway's certificate. It names the hosts under which the gateway can be reached now: a stock
// client compares them with its URL (RFC 9110 section 4.3.4), while nodes of ours compare keys.
type certificates struct {
	authority *admit.Authority
	key       *identity.Private
	addresses func() []string // HOST:PORT
	now       func() time.Time
	failed    func(error) // is told why a certificate was not replaced that stays in use, must not block

	mu       sync.Mutex // guards the rest
	hosts    []string
	made     time.Time
	current  *tls.Certificate
	failedAt time.Time // when it could not be replaced last
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
	now := c.now()
	// One made before the clock was set may be for another year.
	valid := c.current != nil && !now.Before(c.current.Leaf.NotBefore) && !now.After(c.current.Leaf.NotAfter)
	if valid && slices.Equal(hosts, c.hosts) && now.Sub(c.made) < certificateAge {
		return c.current, nil
	}
	if valid && !c.failedAt.IsZero() && now.Sub(c.failedAt).Abs() < certificateRetry {
		return c.current, nil
	}
	fresh, err := c.issue(hosts)
	switch {
	case err == nil:
		c.current, c.hosts, c.made, c.failedAt = fresh, hosts, now, time.Time{}
	case valid:
		// As with a full disk. Members compare keys, so they can come in all the same.
		c.failedAt = now
		c.failed(err)
	default:
		return nil, err
	}
	return c.current, nil
}

// issue asks the authority for a certificate for the hosts.
func (c *certificates) issue(hosts []string) (*tls.Certificate, error) {
	chain, err := c.authority.GatewayChain(hosts)
	if err != nil {
		return nil, fmt.Errorf("gateway certificate: %w", err)
	}
	certificate, err := admit.TLSCertificate(chain, c.key.Signer())
	if err != nil {
		return nil, fmt.Errorf("gateway certificate: %w", err)
	}
	return &certificate, nil
}

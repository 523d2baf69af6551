package portmap

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// pcpClient is one mapping over PCP. Only the goroutine of [Client.Run] uses it, one call at a time.
type pcpClient struct {
	dial         dialFunc
	local        netip.Addr
	internalPort uint16
	nonce        [pcpNonceBytes]byte
	epoch        pcpEpoch
}

func (p *pcpClient) name() Protocol { return PCP }

// probe asks for an ANNOUNCE (RFC 6887 section 14.1), which changes nothing. Any answer in version 2 means
// that the router speaks PCP, even one that refuses the operation.
func (p *pcpClient) probe(ctx context.Context) error {
	request := appendPCPRequest(nil, pcpOpAnnounce, 0, p.local)
	return exchange(ctx, p.dial, request, pcpRetransmission(), func(b []byte) (bool, error) {
		r, ok := parsePCPResponse(b)
		if !ok || r.opcode != pcpOpAnnounce {
			return false, nil
		}
		if r.version != pcpVersion || r.result == pcpUnsupportedVersion {
			return true, errNotSpoken
		}
		p.epoch.observe(r.epoch, time.Now())
		return true, nil
	})
}

// acquire requests the mapping or its renewal, which are the same in PCP: a router that lost its state
// creates it anew, so that the answer's epoch needs no second request.
func (p *pcpClient) acquire(ctx context.Context, want request) (lease, error) {
	r, err := p.request(ctx, want.external, want.lifetime)
	if err != nil {
		return lease{}, err
	}
	external := netip.AddrPortFrom(r.mapping.external, r.mapping.externalPort)
	if external.Addr().IsUnspecified() {
		return lease{}, errNoUplink
	}
	if r.lifetime == 0 || !external.Addr().Is4() || external.Port() == 0 {
		return lease{}, fmt.Errorf("%w: PCP mapping to %s for %s", errMalformed, external, r.lifetime)
	}
	return lease{external: external, lifetime: r.lifetime}, nil
}

// release deletes the mapping: the same request with a lifetime of 0, RFC 6887 section 15.1.
func (p *pcpClient) release(ctx context.Context) error {
	_, err := p.request(ctx, netip.AddrPort{}, 0)
	return err
}

// announced judges an unsolicited ANNOUNCE.
func (p *pcpClient) announced(a announcement) bool {
	return a.protocol == PCP && p.epoch.observe(a.epoch, a.at)
}

func (p *pcpClient) request(ctx context.Context, external netip.AddrPort, lifetime time.Duration,
) (pcpResponse, error) {
	address := external.Addr()
	if !address.IsValid() {
		address = netip.IPv4Unspecified()
	}
	datagram := appendPCPMapRequest(nil, pcpMap{
		nonce: p.nonce, protocol: protocolNumberUDP, internalPort: p.internalPort,
		externalPort: external.Port(), external: address,
	}, lifetime, p.local)
	var response pcpResponse
	err := exchange(ctx, p.dial, datagram, pcpRetransmission(), func(b []byte) (bool, error) {
		r, ok := parsePCPResponse(b)
		if !ok || r.opcode != pcpOpMap {
			return false, nil
		}
		if r.version != pcpVersion || r.result == pcpUnsupportedVersion {
			return true, errNotSpoken
		}
		if !p.isAnswer(r) {
			return false, nil
		}
		p.epoch.observe(r.epoch, time.Now())
		response = r
		return true, nil
	})
	if err != nil {
		return pcpResponse{}, err
	}
	if response.result != pcpSuccess {
		return pcpResponse{}, &RefusedError{
			Protocol: PCP, Code: int(response.result), Reason: pcpReason(response.result),
			RetryAfter: response.lifetime, Port: p.internalPort,
		}
	}
	return response, nil
}

// isAnswer compares what the router must copy from the request, RFC 6887 section 11.4.
func (p *pcpClient) isAnswer(r pcpResponse) bool {
	return r.hasMap && r.mapping.nonce == p.nonce && r.mapping.protocol == protocolNumberUDP &&
		r.mapping.internalPort == p.internalPort
}

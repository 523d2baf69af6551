package portmap

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// natpmpClient is one mapping over NAT-PMP. Only the goroutine of [Client.Run] uses it, one call at a time.
type natpmpClient struct {
	dial         dialFunc
	internalPort uint16
	epoch        natpmpEpoch
}

func (p *natpmpClient) name() Protocol { return NATPMP }

// probe asks for the external address, which changes nothing.
func (p *natpmpClient) probe(ctx context.Context) error {
	r, err := p.exchange(ctx, appendNATPMPAddressRequest(nil), natpmpOpAddress, 0)
	if err == nil && (r.result == natpmpBadVersion || r.result == natpmpUnknownOpcode) {
		return errNotSpoken
	}
	return err
}

// acquire requests the mapping or its renewal, then the external address, which the mapping's answer leaves
// out.
func (p *natpmpClient) acquire(ctx context.Context, want request) (lease, error) {
	datagram := appendNATPMPMapRequest(nil, p.internalPort, want.external.Port(), want.lifetime)
	mapped, err := p.exchange(ctx, datagram, natpmpOpMapUDP, p.internalPort)
	if err != nil {
		return lease{}, err
	}
	if err := p.refusal(mapped); err != nil {
		return lease{}, err
	}
	address, err := p.exchange(ctx, appendNATPMPAddressRequest(nil), natpmpOpAddress, 0)
	if err != nil {
		return lease{}, err
	}
	if err := p.refusal(address); err != nil {
		return lease{}, err
	}
	external := netip.AddrPortFrom(address.external, mapped.externalPort)
	if external.Addr().IsUnspecified() {
		return lease{}, errNoUplink
	}
	if mapped.lifetime == 0 || external.Port() == 0 {
		return lease{}, fmt.Errorf("%w: NAT-PMP mapping to %s for %s", errMalformed, external, mapped.lifetime)
	}
	return lease{external: external, lifetime: mapped.lifetime}, nil
}

// release deletes the mapping, RFC 6886 section 3.4.
func (p *natpmpClient) release(ctx context.Context) error {
	r, err := p.exchange(ctx, appendNATPMPMapRequest(nil, p.internalPort, 0, 0), natpmpOpMapUDP, p.internalPort)
	if err != nil {
		return err
	}
	return p.refusal(r)
}

// announced judges an unsolicited announcement of the external address.
func (p *natpmpClient) announced(a announcement) bool {
	return a.protocol == NATPMP && p.epoch.observe(a.epoch, a.at)
}

func (p *natpmpClient) exchange(ctx context.Context, datagram []byte, opcode uint8, port uint16,
) (natpmpResponse, error) {
	var response natpmpResponse
	err := exchange(ctx, p.dial, datagram, natpmpRetransmission(), func(b []byte) (bool, error) {
		r, ok := parseNATPMPResponse(b)
		if !ok || r.opcode != opcode || r.result == natpmpSuccess && r.internalPort != port {
			return false, nil
		}
		p.epoch.observe(r.epoch, time.Now())
		response = r
		return true, nil
	})
	return response, err
}

func (p *natpmpClient) refusal(r natpmpResponse) error {
	if r.result == natpmpSuccess {
		return nil
	}
	return &RefusedError{
		Protocol: NATPMP, Code: int(r.result), Reason: natpmpReason(r.result), Port: p.internalPort,
	}
}

package portmap

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// UPnP error codes: Device Architecture 1.1 section 3.2.5 and WANIPConnection:2 section 2.5.
const (
	upnpInvalidAction    = 401
	upnpInvalidArguments = 402
	upnpConflict         = 718
	upnpNoSuchEntry      = 714
	upnpSamePorts        = 724
	upnpOnlyPermanent    = 725
)

// upnpClient is one mapping over UPnP IGD. Only the goroutine of [Client.Run] uses it, one call at a time.
type upnpClient struct {
	web          *webClient
	search       func(ctx context.Context) ([]location, error)
	local        netip.Addr
	internalPort uint16
	description  string

	// service is the chosen control point, nil before the first successful probe.
	service *controlPoint
	// stale asks for a new search before the next request; service stays until then to delete the mapping with.
	stale bool
	// mapped is the external port of our mapping, 0 when there is none.
	mapped uint16
	// permanent is set once the router has refused a limited lifetime.
	permanent bool
}

// location is an answer to a search: where the description is.
type location struct{ description *url.URL }

// controlPoint is a service that was found to work.
type controlPoint struct {
	kind     string
	url      *url.URL
	external netip.Addr
}

func (p *upnpClient) name() Protocol { return UPnP }

// announced is never true: the UPnP events that tell of changes would need a listening HTTP server.
func (p *upnpClient) announced(announcement) bool { return false }

// probe searches for a router and its service and asks that for the external address; nothing changes.
func (p *upnpClient) probe(ctx context.Context) error {
	locations, err := p.search(ctx)
	if err != nil {
		return err
	}
	err = errNoAnswer
	for _, l := range locations {
		point, pointErr := p.choose(ctx, l.description)
		if pointErr == nil {
			p.service, p.stale = point, false
			return nil
		}
		err = pointErr
	}
	return err
}

// choose fetches a description and gives its first service that knows an external address: a router with two
// uplinks has a service for each, and the one of the dead uplink has none.
func (p *upnpClient) choose(ctx context.Context, description *url.URL) (*controlPoint, error) {
	host, err := netip.ParseAddr(description.Hostname())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	data, err := p.web.get(ctx, description)
	if err != nil {
		return nil, err
	}
	baseText, services, err := parseDescription(data)
	if err != nil {
		return nil, err
	}
	base := description
	if named, ok := acceptURL(nil, baseText, host); ok {
		base = named
	}
	err = errNotSpoken
	for _, s := range services {
		control, ok := acceptURL(base, s.control, host)
		if !ok {
			continue
		}
		point := &controlPoint{kind: s.kind, url: control}
		addressErr := p.externalAddress(ctx, point)
		if addressErr == nil {
			return point, nil
		}
		err = addressErr
	}
	return nil, err
}

// acquire requests the mapping or its renewal, then asks for the external address.
func (p *upnpClient) acquire(ctx context.Context, want request) (lease, error) {
	if p.service == nil || p.stale {
		if err := p.probe(ctx); err != nil {
			return lease{}, err
		}
	}
	port, err := p.mapAny(ctx, want)
	if err != nil {
		// The description may have moved with a restart of the router: search again next time.
		p.stale = true
		return lease{}, err
	}
	p.mapped = port
	if err := p.externalAddress(ctx, p.service); err != nil {
		return lease{}, err
	}
	return lease{
		external: netip.AddrPortFrom(p.service.external, port), lifetime: want.lifetime, permanent: p.permanent,
	}, nil
}

// mapAny maps the wanted port or, when others hold it, another one.
func (p *upnpClient) mapAny(ctx context.Context, want request) (uint16, error) {
	const tries = 4
	port := want.external.Port()
	var err error
	for range tries {
		var granted uint16
		granted, err = p.mapPort(ctx, port, want.lifetime)
		if err == nil {
			return granted, nil
		}
		if code := faultCode(err); code != upnpConflict {
			return 0, err
		}
		port = uint16(1024 + rand.IntN(1<<16-1024))
	}
	return 0, err
}

// mapPort maps one port. It looks first who holds it, because many routers replace the mapping of another
// host without a word.
func (p *upnpClient) mapPort(ctx context.Context, port uint16, lifetime time.Duration) (uint16, error) {
	if err := p.checkFree(ctx, port); err != nil {
		return 0, err
	}
	granted, err := p.addMapping(ctx, port, lifetime)
	switch faultCode(err) {
	case upnpOnlyPermanent, upnpInvalidArguments:
		if !p.permanent {
			p.permanent = true
			granted, err = p.addMapping(ctx, port, lifetime)
		}
	case upnpSamePorts:
		if port != p.internalPort {
			return p.addMapping(ctx, p.internalPort, lifetime)
		}
	}
	return granted, err
}

// checkFree fails with a conflict when another host or port holds the external port. Routers that do not
// answer the question are taken at the word of the request itself.
func (p *upnpClient) checkFree(ctx context.Context, port uint16) error {
	fields, err := p.call(ctx, p.service, "GetSpecificPortMappingEntry", p.key(port))
	var refused *RefusedError
	switch {
	case errors.As(err, &refused):
		return nil
	case err != nil:
		return err
	case fields["NewInternalClient"] == p.local.String() &&
		fields["NewInternalPort"] == strconv.Itoa(int(p.internalPort)), fields["NewInternalClient"] == "":
		return nil
	}
	return p.refused(upnpConflict, "the external port is mapped to another host or port")
}

// addMapping calls AddPortMapping, and where version 2 reports a conflict AddAnyPortMapping, which chooses a
// port.
func (p *upnpClient) addMapping(ctx context.Context, port uint16, lifetime time.Duration) (uint16, error) {
	seconds := lifetimeSeconds(lifetime)
	if p.permanent {
		seconds = 0
	}
	arguments := append(p.key(port),
		soapArgument{"NewInternalPort", strconv.Itoa(int(p.internalPort))},
		soapArgument{"NewInternalClient", p.local.String()},
		soapArgument{"NewEnabled", "1"},
		soapArgument{"NewPortMappingDescription", p.description},
		soapArgument{"NewLeaseDuration", strconv.FormatUint(uint64(seconds), 10)},
	)
	_, err := p.call(ctx, p.service, "AddPortMapping", arguments)
	if faultCode(err) != upnpConflict || p.service.kind != serviceIP2 {
		return port, err
	}
	fields, err := p.call(ctx, p.service, "AddAnyPortMapping", arguments)
	if faultCode(err) == upnpInvalidAction {
		return 0, p.refused(upnpConflict, "the external port is taken")
	}
	if err != nil {
		return 0, err
	}
	granted, err := strconv.ParseUint(fields["NewReservedPort"], 10, 16)
	if err != nil || granted == 0 {
		return 0, fmt.Errorf("%w: reserved port %q", errMalformed, printable(fields["NewReservedPort"]))
	}
	return uint16(granted), nil
}

// release deletes our mapping; none is no error.
func (p *upnpClient) release(ctx context.Context) error {
	if p.mapped == 0 || p.service == nil {
		return nil
	}
	_, err := p.call(ctx, p.service, "DeletePortMapping", p.key(p.mapped))
	if faultCode(err) == upnpNoSuchEntry {
		err = nil
	}
	if err == nil {
		p.mapped = 0
	}
	return err
}

// externalAddress fills in the address of a control point.
func (p *upnpClient) externalAddress(ctx context.Context, point *controlPoint) error {
	fields, err := p.call(ctx, point, "GetExternalIPAddress", nil)
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(fields["NewExternalIPAddress"])
	if fields["NewExternalIPAddress"] == "" || err == nil && addr.IsUnspecified() {
		return errNoUplink
	}
	if err != nil || !addr.Is4() {
		return fmt.Errorf("%w: external address %q", errMalformed, printable(fields["NewExternalIPAddress"]))
	}
	point.external = addr
	return nil
}

// key gives the arguments that name a mapping.
func (p *upnpClient) key(port uint16) []soapArgument {
	return []soapArgument{
		{"NewRemoteHost", ""}, {"NewExternalPort", strconv.Itoa(int(port))}, {"NewProtocol", "UDP"},
	}
}

// call performs an action; a fault of the router is a [RefusedError].
func (p *upnpClient) call(ctx context.Context, point *controlPoint, action string, arguments []soapArgument,
) (map[string]string, error) {
	body, err := soapRequest(point.kind, action, arguments)
	if err != nil {
		return nil, err
	}
	status, data, err := p.web.post(ctx, point.url, point.kind+"#"+action, body)
	if err != nil {
		return nil, err
	}
	fields, fault, err := parseSOAP(data)
	switch {
	case err != nil && status != 200:
		return nil, p.refused(status, "HTTP status of "+action)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", action, err)
	case fault != nil:
		return nil, p.refused(fault.code, action+": "+fault.text)
	case status != 200:
		return nil, p.refused(status, "HTTP status of "+action)
	}
	return fields, nil
}

func (p *upnpClient) refused(code int, reason string) *RefusedError {
	return &RefusedError{Protocol: UPnP, Code: code, Reason: reason, Port: p.internalPort}
}

// faultCode gives the code of a refusal, or 0.
func faultCode(err error) int {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return 0
}

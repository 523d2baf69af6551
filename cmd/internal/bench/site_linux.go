package bench

import (
	"context"
	"errors"
	"io"
	"net/netip"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

// The link of every contender: documentation addresses (RFC 5737) on a cable.
const (
	linkMTU       = 1500
	clientAddress = "192.0.2.2"
	serverAddress = "192.0.2.1"
)

// site is where one contender is measured: two machines, a cable, what the contender runs on them, and a traffic server
// behind it.
type site struct {
	name           string
	version        string
	client, server *lab.Namespace
	traffic        *traffic.Server
	processes      []int            // of the contender's daemons
	daemons        []*stage.Aetherd // those of them that are ours
	closers        []io.Closer      // in the order in which they were opened
}

// newSite makes the machines and the cable. The site must be closed, after an error too.
func newSite(name string) (*site, error) {
	s := &site{name: name}
	for _, place := range []struct {
		namespace **lab.Namespace
		name      string
	}{{&s.client, "client"}, {&s.server, "server"}} {
		namespace, err := lab.NewNamespace(place.name)
		if err != nil {
			return s, err
		}
		*place.namespace = namespace
		s.closers = append(s.closers, namespace)
	}
	near, far := s.client.Interface("eth0"), s.server.Interface("eth0")
	if err := lab.Veth(near, far, linkMTU); err != nil {
		return s, err
	}
	return s, errors.Join(near.AddAddress(clientAddress+"/24"), far.AddAddress(serverAddress+"/24"))
}

// serve starts the traffic server at an address of the server.
func (s *site) serve(ctx context.Context, at netip.Addr) error {
	server, err := traffic.Serve(ctx, s.server, netip.AddrPortFrom(at, 0).String())
	if err != nil {
		return err
	}
	s.traffic = server
	s.closers = append(s.closers, server)
	return nil
}

// Close takes everything away, the last thing first, but the daemons before their machines.
func (s *site) Close() error {
	errs := []error{stage.StopAll(s.daemons...)}
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i].Close())
	}
	s.closers, s.daemons = nil, nil
	return errors.Join(errs...)
}

// bareLink is the cable alone.
func bareLink(ctx context.Context) (*site, error) {
	s, err := newSite("bare link")
	if err != nil {
		return s, err
	}
	return s, s.serve(ctx, netip.MustParseAddr(serverAddress))
}

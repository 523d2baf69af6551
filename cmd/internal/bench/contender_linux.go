package bench

import (
	"context"
	"net/netip"
)

// contender is what is measured.
type contender interface {
	// name is that of its column.
	name() string
	// version is empty where there is none.
	version() string
	// install makes the machines of a site reach its target through the contender, at the address that it returns. If a
	// process of it ends by itself later on, it calls cancel.
	install(ctx context.Context, s *site, cancel context.CancelCauseFunc) (netip.Addr, error)
}

// bareLink is the network alone.
type bareLink struct{}

func (bareLink) name() string    { return "bare link" }
func (bareLink) version() string { return "" }

func (bareLink) install(_ context.Context, s *site, _ context.CancelCauseFunc) (netip.Addr, error) {
	if s.far == nil {
		return netip.MustParseAddr(serverAddress), nil
	}
	if err := s.server.Forward(); err != nil {
		return netip.Addr{}, err
	}
	return netip.MustParseAddr(farAddress), s.client.AddRoute(farPrefix, serverAddress)
}

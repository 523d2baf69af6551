package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/impair"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

// The links of every contender: documentation addresses (RFC 5737) between client and server, and private ones behind
// the server.
const (
	linkMTU       = 1500
	clientAddress = "192.0.2.2"
	serverAddress = "192.0.2.1"
	farPrefix     = "10.20.30.0/24"
	farGateway    = "10.20.30.1"
	farAddress    = "10.20.30.2"
)

// wanPath is what the emulated link does to each direction.
func wanPath() impair.Impairments {
	return impair.Impairments{Delay: 25 * time.Millisecond, Loss: 0.001}
}

// site is where one contender is measured in one pass: its machines, the links between them, what the contender runs on
// them, and a traffic server.
type site struct {
	contender
	place          place
	number         int // no other site has it
	client, server *lab.Namespace
	far            *lab.Namespace   // behind the server, where the place has one
	near           [2]lab.Interface // the link of client and server
	emulator       *lab.Emulator    // which is that link, or nil
	traffic        *traffic.Server
	processes      []int            // of the contender's daemons
	daemons        []*stage.Aetherd // those of them that are ours
	closers        []io.Closer      // in the order in which they were opened
}

// openSite builds a site and starts the contender. The site must be closed, after an error too. Sites with the same seed
// have the same luck.
func openSite(
	ctx context.Context, c contender, at place, number int, seed uint64, cancel context.CancelCauseFunc,
) (*site, error) {
	s := &site{contender: c, place: at, number: number}
	if err := s.build(seed); err != nil {
		return s, fmt.Errorf("%s: %w", c.name(), err)
	}
	address, err := c.install(ctx, s, cancel)
	if err != nil {
		return s, fmt.Errorf("%s: %w", c.name(), err)
	}
	if s.traffic, err = traffic.Serve(ctx, s.target(), netip.AddrPortFrom(address, 0).String()); err != nil {
		return s, fmt.Errorf("%s: %w", c.name(), err)
	}
	s.closers = append(s.closers, s.traffic)
	if s.emulator != nil {
		return s, s.emulator.SetBoth(wanPath())
	}
	return s, nil
}

// target is the machine that traffic goes to.
func (s *site) target() *lab.Namespace {
	if s.far != nil {
		return s.far
	}
	return s.server
}

// build makes the machines and the links.
func (s *site) build(seed uint64) error {
	var err error
	if s.client, err = s.machine("client"); err != nil {
		return err
	}
	if s.server, err = s.machine("server"); err != nil {
		return err
	}
	s.near = [2]lab.Interface{s.client.Interface("eth0"), s.server.Interface("eth0")}
	if err := s.join(seed); err != nil {
		return err
	}
	if err := errors.Join(s.near[0].AddAddress(clientAddress+"/24"), s.near[1].AddAddress(serverAddress+"/24")); err != nil {
		return err
	}
	if s.place != lan && s.place != hub {
		return nil
	}
	if s.far, err = s.machine("far"); err != nil {
		return err
	}
	inner, outer := s.server.Interface("eth1"), s.far.Interface("eth0")
	if err := lab.Veth(inner, outer, linkMTU); err != nil {
		return err
	}
	return errors.Join(inner.AddAddress(farGateway+"/24"), outer.AddAddress(farAddress+"/24"),
		s.far.AddRoute("0.0.0.0/0", farGateway))
}

// machine makes one. Its name is that of what runs there too.
func (s *site) machine(role string) (*lab.Namespace, error) {
	n, err := lab.NewNamespace(role + strconv.Itoa(s.number))
	if err == nil {
		s.closers = append(s.closers, n)
	}
	return n, err
}

// join makes the link between client and server.
func (s *site) join(seed uint64) error {
	if s.place != wan {
		return lab.Veth(s.near[0], s.near[1], linkMTU)
	}
	e, err := lab.Emulate(s.near[0], s.near[1], lab.EmulatorConfig{MTU: linkMTU, Seed: seed})
	if err != nil {
		return err
	}
	s.emulator = e
	s.closers = append(s.closers, e)
	return nil
}

// Close takes everything away, the last thing first, but our daemons before their machines.
func (s *site) Close() error {
	errs := []error{stage.StopAll(s.daemons...)}
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i].Close())
	}
	s.closers = nil
	return errors.Join(errs...)
}

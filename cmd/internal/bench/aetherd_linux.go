package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage"
	"github.com/aethertunnel/aethertunnel/control/api"
)

// startLimit is how long a contender may take until packets pass.
const startLimit = 10 * time.Second

// aetherd is this build.
type aetherd struct {
	column string
	build  string // its version
}

func (a aetherd) name() string    { return a.column }
func (a aetherd) version() string { return a.build }

func (aetherd) install(ctx context.Context, s *site, cancel context.CancelCauseFunc) (netip.Addr, error) {
	args := []string{"--advertise", serverAddress + ":443"}
	if s.place == lan {
		args = append(args, "--advertise-routes", farPrefix)
	}
	gateway, err := s.startAetherd(ctx, cancel, stage.Launch{Namespace: s.server, Args: args})
	if err != nil {
		return netip.Addr{}, err
	}
	target := gateway
	members := []*stage.Launch{{Namespace: s.client}}
	if s.place == hub {
		members = append(members, &stage.Launch{Namespace: s.far})
	}
	for _, m := range members {
		invite, err := gateway.Invite(ctx, api.InviteRequest{Uses: 1})
		if err != nil {
			return netip.Addr{}, err
		}
		m.Invite = invite.Line
		member, err := s.startAetherd(ctx, cancel, *m)
		if err != nil {
			return netip.Addr{}, err
		}
		if m.Namespace == s.far {
			target = member
		}
	}
	if s.place == lan {
		return netip.MustParseAddr(farAddress), nil
	}
	return innerAddress(ctx, target)
}

// innerAddress is the IPv4 address of a node in the tunnel.
func innerAddress(ctx context.Context, d *stage.Aetherd) (netip.Addr, error) {
	status, err := d.Status(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	i := slices.IndexFunc(status.Addresses, netip.Addr.Is4)
	if i < 0 {
		return netip.Addr{}, errors.New("a node has no IPv4 address in the tunnel")
	}
	return status.Addresses[i], nil
}

// startAetherd starts one end and waits until it is ready.
func (s *site) startAetherd(
	ctx context.Context, cancel context.CancelCauseFunc, l stage.Launch,
) (*stage.Aetherd, error) {
	d, err := stage.Start(l)
	if err != nil {
		return nil, err
	}
	s.daemons = append(s.daemons, d)
	s.processes = append(s.processes, d.PID())
	limited, stop := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not within %v", startLimit))
	defer stop()
	if err := d.AwaitReady(limited); err != nil {
		return nil, err
	}
	d.Watch(cancel)
	return d, nil
}

// laneless says in a remark if packets of ours do not go through lanes.
func (s *site) laneless(ctx context.Context) (remark string, err error) {
	for _, d := range s.daemons {
		status, err := d.Status(ctx)
		if err != nil {
			return "", err
		}
		for _, p := range status.Peers {
			if p.Connected && p.Path != "lane" {
				return fmt.Sprintf("packets go through the %s, not a lane.", p.Path), nil
			}
		}
	}
	return "", nil
}

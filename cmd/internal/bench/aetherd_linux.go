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

const (
	// startLimit is how long a contender may take until packets pass.
	startLimit = 10 * time.Second
	// aetherdName is the name of our own column.
	aetherdName = "aetherd"
)

// aetherdSite runs this build at both ends.
func aetherdSite(ctx context.Context, version string, cancel context.CancelCauseFunc) (*site, error) {
	s, err := newSite(aetherdName)
	if err != nil {
		return s, err
	}
	s.version = version
	gateway, err := s.startAetherd(ctx, cancel, stage.Launch{
		Namespace: s.server, Args: []string{"--advertise", serverAddress + ":443"},
	})
	if err != nil {
		return s, err
	}
	status, err := gateway.Status(ctx)
	if err != nil {
		return s, err
	}
	invite, err := gateway.Invite(ctx, api.InviteRequest{Uses: 1})
	if err != nil {
		return s, err
	}
	if _, err := s.startAetherd(ctx, cancel, stage.Launch{Namespace: s.client, Invite: invite.Line}); err != nil {
		return s, err
	}
	i := slices.IndexFunc(status.Addresses, netip.Addr.Is4)
	if i < 0 {
		return s, errors.New("the gateway has no IPv4 address in the tunnel")
	}
	return s, s.serve(ctx, status.Addresses[i])
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

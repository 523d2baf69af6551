package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage"
	"github.com/aethertunnel/aethertunnel/control/api"
)

const (
	// runLimit is how long the whole may take, all failures included, before it is ended.
	runLimit = 35 * time.Second
	// startLimit is how long a daemon may take until packets pass.
	startLimit = 10 * time.Second
	// inviteTTL is how long the invite is good for.
	inviteTTL = 10 * time.Minute
)

// Options says how to run the demonstration.
type Options struct {
	Duration time.Duration // of each measurement that takes time
	View     View          // where the steps are shown
}

// play is one run of the demonstration.
type play struct {
	Options
	*network

	gatewayd, laptopd *stage.Aetherd
	result            Result
}

// Run builds the network, starts the daemons, measures and takes everything away again. It must run in a process that
// [stage.Prepare] has prepared. An error says what failed and quotes the daemons' logs; the result has what was measured
// until then.
func Run(ctx context.Context, o Options) (Result, error) {
	began := time.Now()
	p := &play{Options: o}
	ctx, stop := context.WithTimeoutCause(ctx, runLimit, fmt.Errorf("not done within %v", runLimit))
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := p.run(ctx, cancel)
	err = stage.Verdict(err, p.end(), p.gatewayd, p.laptopd)
	p.result.OK, p.result.Elapsed = err == nil, time.Since(began)
	return p.result, err
}

func (p *play) run(ctx context.Context, cancel context.CancelCauseFunc) error {
	var err error
	if p.network, err = build(ctx); err != nil {
		return err
	}
	p.View.Step("network", "laptop %s ── %s gateway %s ── %s LAN host", laptopAddress, gatewayAddress,
		lanGateway4, lanHost4)
	p.View.Step("", "three network namespaces of this machine, joined by cables (veth)")
	if err := p.startGateway(ctx, cancel); err != nil {
		return err
	}
	if err := p.startLaptop(ctx, cancel); err != nil {
		return err
	}
	if err := p.showSession(ctx); err != nil {
		return err
	}
	trials := p.trials(p.result.Session.GatewayAddresses, p.Duration)
	p.result.Checks, err = measure(ctx, trials, p.Duration+slack, p.View)
	if failures := p.result.Failures(); len(failures) > 0 {
		err = errors.Join(fmt.Errorf("failed: %s", strings.Join(failures, "; ")), err)
	}
	return err
}

// end stops the daemons and takes the network away.
func (p *play) end() error {
	err := stage.StopAll(p.laptopd, p.gatewayd)
	if p.network != nil {
		err = errors.Join(err, p.network.Close())
	}
	return err
}

// start runs one daemon and waits until it is ready. If it ends after that by itself, everything ends. The time is how
// long it took.
func (p *play) start(
	ctx context.Context, d **stage.Aetherd, l stage.Launch, cancel context.CancelCauseFunc,
) (time.Duration, error) {
	began := time.Now()
	daemon, err := stage.Start(l)
	if err != nil {
		return 0, err
	}
	*d = daemon
	limited, stop := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not within %v", startLimit))
	defer stop()
	if err := daemon.AwaitReady(limited); err != nil {
		return 0, err
	}
	daemon.Watch(cancel)
	return time.Since(began), nil
}

func (p *play) startGateway(ctx context.Context, cancel context.CancelCauseFunc) error {
	args := []string{"--advertise", gatewayAddress + ":" + gatewayPort, "--advertise-routes", lanPrefixes}
	p.View.Step("gateway", "makes a network and offers its LAN to it")
	p.View.Command("aetherd up " + strings.Join(args, " "))
	took, err := p.start(ctx, &p.gatewayd, stage.Launch{Namespace: p.gateway, Args: args}, cancel)
	if err != nil {
		return err
	}
	s, err := p.gatewayd.Status(ctx)
	if err != nil {
		return err
	}
	p.result.Session.GatewayAddresses = s.Addresses
	p.View.Step("", "listens on %s after %s; device %s", strings.Join(s.Listen, " "), millis(took), s.Device.Name)
	p.View.Step("", "network %s", join(s.Prefixes))
	for _, notice := range s.Notices {
		p.View.Step("notice", "%s", notice)
	}
	return nil
}

func (p *play) startLaptop(ctx context.Context, cancel context.CancelCauseFunc) error {
	invite, err := p.gatewayd.Invite(ctx, api.InviteRequest{Uses: 1, TTLSeconds: int64(inviteTTL.Seconds())})
	if err != nil {
		return err
	}
	p.View.Step("invite", "good once, for %.0f minutes; a secret, so it goes to the laptop unseen", inviteTTL.Minutes())
	p.View.Step("laptop", "joins by it")
	p.View.Command("aetherd up - < invite")
	took, err := p.start(ctx, &p.laptopd, stage.Launch{Namespace: p.laptop, Invite: invite.Line}, cancel)
	if err != nil {
		return err
	}
	p.View.Step("", "packets pass after %s", millis(took))
	return nil
}

// showSession says how the two nodes are joined, and fails if they are not as they should be.
func (p *play) showSession(ctx context.Context) error {
	s, err := p.laptopd.Status(ctx)
	if err != nil {
		return err
	}
	if len(s.Peers) != 1 || !s.Peers[0].Connected {
		return fmt.Errorf("laptop: no session with the gateway, state %q", s.State)
	}
	peer, session := s.Peers[0], &p.result.Session
	session.KeyExchange, session.Remote = peer.KeyExchange, peer.Remote
	session.LaptopAddresses, session.Routes = s.Addresses, s.Routes
	p.View.Step("handshake", "key exchange %s, QUIC with %s, round trip %s", peer.KeyExchange, peer.Remote,
		millis(time.Duration(peer.RTTMicros)*time.Microsecond))
	p.View.Step("addresses", "laptop %s on %s", join(s.Addresses), s.Device.Name)
	p.View.Step("", "gateway %s", join(session.GatewayAddresses))
	p.View.Step("routes", "the laptop sends into the tunnel what goes to")
	p.View.Step("", "%s", join(s.Routes))
	for _, notice := range s.Notices {
		p.View.Step("notice", "%s", notice)
	}
	for _, want := range strings.Split(lanPrefixes, ",") {
		if !slices.Contains(s.Routes, netip.MustParsePrefix(want)) {
			return fmt.Errorf("laptop: no route to %s, the LAN behind the gateway", want)
		}
	}
	return nil
}

// join writes a list with spaces between.
func join[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return strings.Join(texts, "  ")
}

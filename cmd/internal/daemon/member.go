package daemon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/aethertunnel/aethertunnel/control"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/dataplane"
	"github.com/aethertunnel/aethertunnel/platform/netmon"
)

// memberNode is a daemon in a member's role.
type memberNode struct {
	*node
	member *control.Member
	joined bool
}

func (n *node) runMember(ctx context.Context) error {
	m := &memberNode{node: n}
	socket, err := n.listen(ctx, netip.AddrPort{})
	if err != nil {
		return err
	}
	defer func() {
		if err := socket.close(); err != nil {
			n.opts.Log.Warn("close socket", "error", err)
		}
	}()
	if err := m.join(ctx, socket); err != nil {
		return err
	}
	if err := n.openNIC(); err != nil {
		return err
	}
	defer n.closeNIC()
	n.openLanes()
	resolver := markedResolver(n.host.selectors.Mark)
	changes := make(chan struct{}, 1)
	connected := make(chan struct{})
	var once sync.Once
	m.member = control.NewMember(control.MemberConfig{
		Key: n.state.key, Membership: *n.state.membership, Save: n.state.saveMembership,
		KeyExchange: policy(n.opts.Config.TLS),
		Transport:   tracedTransport{socket.transport, n.drops, socket.udp}, Resolver: resolver,
		Dataplane: n.engine, Host: n.host, Offer: n.opts.Config.Routes.Advertise, Changes: changes,
		Observe: func(e control.Event) {
			n.observe(e)
			if e.Kind == control.EventConnected {
				once.Do(func() { close(connected) })
			}
		},
		Seed:  rand.Uint64(), // jitter of retries, not a secret
		Now:   now,
		Lanes: n.lanes, Socket: socket.lanes,
	})
	return n.serve(ctx, m,
		m.member.Run,
		func(ctx context.Context) error { return watchNetwork(ctx, n.nic.Name(), changes) },
		func(ctx context.Context) error { return m.announce(ctx, connected) },
	)
}

// join redeems the invite, if there is one to redeem. Nothing on the host has changed yet.
func (m *memberNode) join(ctx context.Context, s *socket) error {
	if m.plan.invite == nil {
		return nil
	}
	m.observe(control.Event{Kind: control.EventDialing, Text: fmt.Sprint(m.plan.invite.Addresses)})
	membership, err := control.Join(ctx, control.JoinConfig{
		Key: m.state.key, Invite: *m.plan.invite, Name: m.name(), Offer: m.opts.Config.Routes.Advertise,
		KeyExchange: policy(m.opts.Config.TLS), Transport: tracedTransport{s.transport, m.drops, s.udp},
		Resolver: markedResolver(m.host.selectors.Mark), Now: now,
	})
	if err != nil {
		return err
	}
	if err := m.state.saveMembership(membership); err != nil {
		return fmt.Errorf("keep membership: %w", err)
	}
	m.state.membership, m.joined = &membership, true
	m.observe(control.Event{Kind: control.EventJoined, Node: membership.Name, Text: "network " + membership.NetworkName})
	return nil
}

// watchNetwork passes changes of the host's network on until ctx ends.
func watchNetwork(ctx context.Context, device string, changes chan<- struct{}) error {
	monitor := netmon.New(netmon.Config{Ignore: []string{device}})
	done := make(chan error, 1)
	go func() { done <- monitor.Run(ctx) }()
	for {
		select {
		case <-monitor.Changes():
			select {
			case changes <- struct{}{}:
			default: // one is waiting already
			}
		case err := <-done:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch the network: %w", err)
		}
	}
}

// announce tells the user what has been set up, and when packets pass.
func (m *memberNode) announce(ctx context.Context, connected <-chan struct{}) error {
	select {
	case <-connected:
	case <-ctx.Done():
		return nil
	}
	m.opts.up(Up{Status: m.Status(), Joined: m.joined})
	rtt, err := firstPacket(ctx, func(ctx context.Context) (time.Duration, error) {
		return firstEcho(ctx, gatewayAddresses(m.member.Status().Membership))
	}, m.received, func(err error) {
		m.observe(control.Event{Kind: control.EventNotice, Text: "nothing comes through the tunnel yet", Err: err})
	})
	switch {
	case err == nil:
		m.observe(control.Event{Kind: control.EventReady, Text: "packets pass", RTT: rtt})
	case errors.Is(err, errNoEcho):
		m.observe(control.Event{Kind: control.EventReady, Text: "packets pass, but the gateway does not answer ping"})
	default:
		return nil // ctx has ended
	}
	m.opts.ready()
	return nil
}

// errNoEcho means that packets come through the tunnel, but no answers to ping: a host may be told not to give any.
var errNoEcho = errors.New("the gateway does not answer ping")

// firstPacket calls ping until it succeeds, or until something else has been received, and tells the first failure.
func firstPacket(
	ctx context.Context, ping func(context.Context) (time.Duration, error), received func() uint64, failed func(error),
) (time.Duration, error) {
	told := false
	for ctx.Err() == nil {
		rtt, err := ping(ctx)
		switch {
		case err == nil:
			return rtt, nil
		case received() > 0:
			return 0, errNoEcho
		case !told && ctx.Err() == nil:
			told = true
			failed(err)
		}
		pause(ctx, echoRetry) // a ping that cannot even be sent fails at once
	}
	return 0, ctx.Err()
}

// pause waits, but not beyond the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// received counts the packets that came through the tunnel.
func (m *memberNode) received() uint64 {
	return m.engine.Stats().Peers[dataplane.PeerID(m.state.membership.Gateway)].ReceivedPackets
}

// gatewayAddresses are the gateway's tunnel addresses: the first of each prefix of the network.
func gatewayAddresses(m store.Membership) []netip.Addr {
	var out []netip.Addr
	for _, p := range m.Prefixes {
		out = append(out, p.Masked().Addr().Next())
	}
	return out
}

// echoLimit is how long a member waits for the first echo through its tunnel.
const echoLimit = 3 * time.Second

// errNoTarget means that the gateway has no tunnel address.
var errNoTarget = errors.New("the gateway has no tunnel address to ping")

// firstEcho pings the addresses through the kernel, and so through our own NIC, until one answers.
func firstEcho(ctx context.Context, targets []netip.Addr) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, echoLimit)
	defer cancel()
	type answer struct {
		rtt time.Duration
		err error
	}
	answers := make(chan answer, len(targets))
	for _, target := range targets {
		go func() {
			rtt, err := echo(ctx, target)
			answers <- answer{rtt, err}
		}()
	}
	last := answer{err: errNoTarget}
	for range targets {
		if last = <-answers; last.err == nil {
			break
		}
	}
	return last.rtt, last.err
}

package crowd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/aethertunnel/aethertunnel/dataplane"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

// MaxPeers is how many peers a crowd may have.
const MaxPeers = 1 << 16

const (
	// settleLimit is how long the lanes of a crowd may take until all carry packets of full length.
	settleLimit = 60 * time.Second
	// drainLimit is how long what is under way may take to arrive at the end of a measurement.
	drainLimit = 10 * time.Second
)

// Config says what a crowd is like.
type Config struct {
	Peers  int // 1 to MaxPeers
	Active int // 1 to Peers: those that have traffic, spread evenly
	// Socket opens a socket on a loopback address with a port of the system's choice.
	Socket func(ctx context.Context) (*udp.Conn, error)
}

// Direction is which way packets flow.
type Direction int

// The directions.
const (
	Up   Direction = iota // from members to the gateway's NIC
	Down                  // from the gateway's NIC to members
)

// String names the direction.
func (d Direction) String() string {
	if d == Up {
		return "up"
	}
	return "down"
}

// Crowd is a gateway with peers. Use Open.
type Crowd struct {
	cfg     Config
	engine  *dataplane.Engine
	nic     *nic
	conn    *udp.Conn // of the gateway
	control *control
	members []*member
	active  []*member
	ports   []*port
	flows   [2]*flow // by direction

	cancel   context.CancelFunc
	parts    sync.WaitGroup // of the gateway
	far      sync.WaitGroup // of the members
	attached sync.WaitGroup
	failed   chan error // capacity 1: the first part that failed
}

// Open makes a crowd and waits until every peer has a lane that carries packets of full length. Close it.
func Open(ctx context.Context, cfg Config) (*Crowd, error) {
	c, err := begin(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err = c.apply(); err == nil {
		err = c.invite()
	}
	if err == nil {
		err = c.agree()
	}
	if err == nil {
		err = c.settle(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// begin starts a gateway that knows no peer.
func begin(ctx context.Context, cfg Config) (*Crowd, error) {
	if cfg.Peers < 1 || cfg.Peers > MaxPeers || cfg.Active < 1 || cfg.Active > cfg.Peers {
		return nil, fmt.Errorf("crowd of %d peers, %d active: out of bounds", cfg.Peers, cfg.Active)
	}
	c := &Crowd{cfg: cfg, engine: dataplane.New(), failed: make(chan error, 1)}
	c.flows = [2]*flow{newFlow(cfg.Active), newFlow(cfg.Active)}
	c.nic = newNIC(c)
	var err error
	if c.conn, err = cfg.Socket(ctx); err != nil {
		return nil, fmt.Errorf("crowd: %w", err)
	}
	if c.control, err = newControl(c); err != nil {
		return nil, errors.Join(err, c.conn.Close())
	}
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.part(func() error { return c.engine.Run(ctx, c.nic) })
	c.part(func() error { return c.engine.Receive(ctx, c.conn) })
	c.part(func() error { return c.control.run(ctx) })
	return c, nil
}

// part runs one part of the gateway.
func (c *Crowd) part(run func() error) {
	c.parts.Go(func() {
		if err := run(); err != nil {
			c.fail(err)
		}
	})
}

func (c *Crowd) fail(err error) {
	select {
	case c.failed <- err:
	default:
	}
}

// apply makes the engine know all peers.
func (c *Crowd) apply() error {
	own := netip.PrefixFrom(gatewayAddress, 32)
	s := dataplane.Snapshot{NICAddresses: []netip.Addr{gatewayAddress}, NICPrefixes: []netip.Prefix{own}}
	for i := range c.cfg.Peers {
		s.Peers = append(s.Peers, dataplane.Peer{ID: peerID(i), Prefixes: memberPrefixes(i)})
	}
	return c.engine.Apply(s)
}

// settle begins the lanes, a part at a time so that no socket's queue is full, and waits for all of them.
func (c *Crowd) settle(ctx context.Context) error {
	const wave = 200
	limit := time.NewTimer(settleLimit)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for from := 0; from < len(c.members); from += wave {
		left := c.members[from:min(from+wave, len(c.members))]
		for round := 0; len(left) > 0; round++ {
			left = unsettled(left, round)
			select {
			case <-tick.C:
			case err := <-c.failed:
				return err
			case <-limit.C:
				return fmt.Errorf("crowd: %d lanes do not carry packets after %v: %w", len(left), settleLimit,
					context.DeadlineExceeded)
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return c.searched(ctx, limit)
}

// unsettled returns the members whose lanes have not been heard at both ends, and now and then has them speak.
func unsettled(all []*member, round int) []*member {
	const pause = 25
	var left []*member
	for _, m := range all {
		if m.heard.Load() && m.at.heard() {
			continue
		}
		left = append(left, m)
		if round%pause == 0 {
			m.ping()
		}
	}
	return left
}

// searched waits until every lane has found out how long its packets may be.
func (c *Crowd) searched(ctx context.Context, limit *time.Timer) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		left := 0
		for _, p := range c.engine.Stats().Peers {
			if p.Lane == nil || p.Lane.MaxPacketBytes < fullInnerBytes {
				left++
			}
		}
		if left == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case err := <-c.failed:
			return err
		case <-limit.C:
			return fmt.Errorf("crowd: %d lanes have not found their length after %v: %w", left, settleLimit,
				context.DeadlineExceeded)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Flow is what a measurement gave.
type Flow struct {
	Seconds float64
	Bytes   uint64 // TCP payload that arrived
	Lost    uint64 // likewise that did not, drained at the end
}

// BitsPerSecond is how fast payload arrived.
func (f Flow) BitsPerSecond() float64 { return 8 * float64(f.Bytes) / f.Seconds }

// Run has all active members send, or receive, as fast as can be for a while.
func (c *Crowd) Run(ctx context.Context, d Direction, duration time.Duration) (Flow, error) {
	f := c.flows[d]
	lost := f.lost.Load()
	f.start(c.active)
	begin, before := time.Now(), arrivedAt(c.active, d)
	err := c.wait(ctx, duration)
	result := Flow{Bytes: arrivedAt(c.active, d) - before, Seconds: time.Since(begin).Seconds()}
	f.on.Store(false)
	if err == nil {
		err = c.drained(ctx, d)
	}
	result.Lost = f.lost.Load() - lost
	return result, err
}

func (c *Crowd) wait(ctx context.Context, duration time.Duration) error {
	over := time.NewTimer(duration)
	defer over.Stop()
	select {
	case <-over.C:
		return nil
	case err := <-c.failed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drained waits until nothing is under way.
func (c *Crowd) drained(ctx context.Context, d Direction) error {
	for until := time.Now().Add(drainLimit); ; {
		busy := 0
		for _, m := range c.active {
			if m.windows[d].state.Load() != idle {
				busy++
			}
		}
		if busy == 0 {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("crowd: traffic of %d members does not end", busy)
		}
		if err := c.wait(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// Rest has control leave its lanes alone for a while, so that a crowd without traffic costs another one nothing.
func (c *Crowd) Rest(rests bool) { c.control.rests.Store(rests) }

// Stats returns the counters of the gateway.
func (c *Crowd) Stats() dataplane.Stats { return c.engine.Stats() }

// Close ends the crowd. It returns after the last of its goroutines has ended.
func (c *Crowd) Close() error {
	err := c.dismiss()
	c.cancel()
	err = errors.Join(err, c.nic.Close(), c.conn.Close())
	c.parts.Wait()
	c.attached.Wait()
	return err
}

// dismiss ends the members.
func (c *Crowd) dismiss() error {
	var errs []error
	for _, f := range c.flows {
		f.end()
	}
	for _, p := range c.ports {
		errs = append(errs, p.conn.Close())
	}
	c.far.Wait()
	return errors.Join(errs...)
}

package crowd

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/aethertunnel/aethertunnel/dataplane"
)

// Memory is what the peers of a gateway take, in bytes per peer: of heap, and of goroutines' stacks. QUIC's own is not
// among it, since the crowd has no sessions.
type Memory struct {
	Peers int `json:"peers"`
	// Known is what the engine keeps of a peer that a snapshot lists.
	Known float64 `json:"known"`
	// Carrier is what serving a session's packets takes: goroutines, mostly.
	Carrier float64 `json:"carrier"`
	// Lane is a lane, settled and idle, with its keys.
	Lane float64 `json:"lane"`
	// Negotiation is what control keeps of the lane.
	Negotiation float64 `json:"negotiation"`
	// Sum is all of these, by the bytes in use, and Spans by the memory taken from the system for them: spans in use
	// of the heap (HeapInuse of package runtime) and stacks.
	Sum   float64 `json:"sum"`
	Spans float64 `json:"spans"`
}

// quiet is how long lanes that carry packets may still have something to say: a burst of probes and its answers.
const quiet = time.Second

// MeasureMemory makes a crowd of idle peers, each with a carrier and a lane, and measures it. No other goroutine should
// allocate meanwhile.
func MeasureMemory(ctx context.Context, cfg Config) (Memory, error) {
	c, err := begin(ctx, cfg)
	if err != nil {
		return Memory{}, err
	}
	m, err := c.measureMemory(ctx)
	return m, errors.Join(err, c.Close())
}

func (c *Crowd) measureMemory(ctx context.Context) (Memory, error) {
	peers := float64(c.cfg.Peers)
	bare := readMemory()
	if err := c.apply(); err != nil {
		return Memory{}, err
	}
	known := readMemory()
	detach := c.attach()
	defer detach()
	carriers := readMemory()
	if err := c.invite(); err != nil {
		return Memory{}, err
	}
	if err := c.agree(); err != nil {
		return Memory{}, err
	}
	if err := c.settle(ctx); err != nil {
		return Memory{}, err
	}
	if err := c.wait(ctx, quiet); err != nil { // the last answers to the last probes
		return Memory{}, err
	}
	if err := c.forgetMembers(); err != nil {
		return Memory{}, err
	}
	all := readMemory()
	c.forgetNegotiations()
	lanes := readMemory()
	m := Memory{
		Peers: c.cfg.Peers, Known: (known.live - bare.live) / peers, Carrier: (carriers.live - known.live) / peers,
		Lane: (lanes.live - carriers.live) / peers, Negotiation: (all.live - lanes.live) / peers,
		Sum: (all.live - bare.live) / peers, Spans: (all.spans - bare.spans) / peers,
	}
	if n := c.carried(); n != c.cfg.Peers {
		return m, fmt.Errorf("crowd: only %d of %d lanes were there to be measured", n, c.cfg.Peers)
	}
	return m, nil
}

// carried counts the peers that have a lane.
func (c *Crowd) carried() (n int) {
	for _, p := range c.engine.Stats().Peers {
		if p.Lane != nil {
			n++
		}
	}
	return n
}

// forgetMembers ends the members: what is left is the gateway's.
func (c *Crowd) forgetMembers() error {
	err := c.dismiss()
	c.control.mu.Lock()
	defer c.control.mu.Unlock()
	for _, p := range c.control.peers {
		p.member = nil
	}
	c.ports, c.members, c.active = nil, nil, nil
	return err
}

func (c *Crowd) forgetNegotiations() {
	c.control.mu.Lock()
	defer c.control.mu.Unlock()
	for _, p := range c.control.peers {
		p.n = nil
	}
}

// memoryInUse is what a process has in use, in bytes.
type memoryInUse struct{ live, spans float64 }

// readMemory reads what is in use once garbage is gone, that which finalizers, pools and shrinking stacks leave behind
// for another cycle too.
func readMemory() memoryInUse {
	for range 3 {
		runtime.GC()
	}
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return memoryInUse{
		live: float64(s.HeapAlloc) + float64(s.StackInuse), spans: float64(s.HeapInuse) + float64(s.StackInuse),
	}
}

// attach gives every peer a carrier on which nothing comes.
func (c *Crowd) attach() (detach func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var began sync.WaitGroup
	for i := range c.cfg.Peers {
		began.Add(1)
		c.attached.Go(func() {
			silent := &silentCarrier{began: began.Done}
			if err := c.engine.Attach(ctx, peerID(i), silent); !errors.Is(err, context.Canceled) {
				c.fail(err)
			}
		})
	}
	began.Wait()
	return func() {
		cancel()
		c.attached.Wait()
	}
}

// silentCarrier is a session on which nothing comes and which takes everything.
type silentCarrier struct{ began func() }

var _ dataplane.Carrier = (*silentCarrier)(nil)

// SendPacket takes a packet and loses it.
func (*silentCarrier) SendPacket([]byte) error { return nil }

func (*silentCarrier) MaxPacketBytes() int { return pathBytes }

// ReceivePacket waits for the end.
func (s *silentCarrier) ReceivePacket(ctx context.Context) ([]byte, error) {
	s.began()
	<-ctx.Done()
	return nil, ctx.Err()
}

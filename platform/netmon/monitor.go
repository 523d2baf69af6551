package netmon

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

const (
	// DefaultQuiet is how long nothing must happen before a burst is over.
	DefaultQuiet = 75 * time.Millisecond
	// DefaultLatest is how long after the first change of a burst the event is sent in any case.
	DefaultLatest = 300 * time.Millisecond

	defaultReceiveBytes = 1 << 20
)

// Change says what has changed since the last event.
type Change struct {
	// Address: an address came, went, or became (un)usable.
	Address bool
	// Link: an interface came, went, went up or down, or got another name or MTU.
	Link bool
	// Default: a default route (or one of the halves by which VPNs write it) came, went or changed.
	Default bool
	// Lost: the kernel dropped messages, so anything may have changed; the other fields are set too.
	Lost bool
}

func (c Change) any() bool { return c != Change{} }

func (c Change) or(o Change) Change {
	return Change{
		Address: c.Address || o.Address, Link: c.Link || o.Link,
		Default: c.Default || o.Default, Lost: c.Lost || o.Lost,
	}
}

// Config is what a [Monitor] works with.
type Config struct {
	// Ignore are the names of our own interfaces; nothing about them is reported.
	Ignore []string
	// Quiet and Latest bound the coalescing; 0 means [DefaultQuiet] and [DefaultLatest].
	Quiet, Latest time.Duration
}

// ErrRunning says that Run was called twice.
var ErrRunning = errors.New("network monitor is running already")

// Monitor watches the network namespace of the thread that calls Run.
type Monitor struct {
	cfg     Config
	changes chan Change
	ready   chan struct{}
	running atomic.Bool

	// Tests set these: the receive buffer to ask for, and what to do between subscribing and reading.
	receiveBytes int
	subscribed   func()
}

// New returns a Monitor. It opens nothing.
func New(cfg Config) *Monitor {
	if cfg.Quiet <= 0 {
		cfg.Quiet = DefaultQuiet
	}
	if cfg.Latest <= 0 {
		cfg.Latest = max(DefaultLatest, cfg.Quiet)
	}
	return &Monitor{
		cfg: cfg, changes: make(chan Change, 1), ready: make(chan struct{}),
		receiveBytes: defaultReceiveBytes, subscribed: func() {},
	}
}

// Changes returns the channel of events. It is never closed.
func (m *Monitor) Changes() <-chan Change { return m.changes }

// Ready is closed when Run has subscribed: what changes from then on is reported.
func (m *Monitor) Ready() <-chan struct{} { return m.ready }

// Run watches until ctx ends and then returns nil. It returns an error when the kernel refuses the subscription, or
// one that matches [errors.ErrUnsupported] where there is no implementation. It owns no goroutine after it has
// returned.
func (m *Monitor) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer m.running.Store(false)
	return m.run(ctx)
}

// send puts an event into the channel, merged with one that was not taken yet. Only Run sends, so this ends.
func (m *Monitor) send(c Change) {
	for {
		select {
		case m.changes <- c:
			return
		default:
		}
		select {
		case old := <-m.changes:
			c = c.or(old)
		default:
		}
	}
}

// coalescer turns bursts into single events.
type coalescer struct {
	quiet, latest time.Duration

	pending     Change
	first, last time.Time
}

func (c *coalescer) add(now time.Time, change Change) {
	if !change.any() {
		return
	}
	if !c.pending.any() {
		c.first = now
	}
	c.last = now
	c.pending = c.pending.or(change)
}

// due returns when the pending event must be sent; ok is false when there is none.
func (c *coalescer) due() (at time.Time, ok bool) {
	if !c.pending.any() {
		return time.Time{}, false
	}
	at = c.last.Add(c.quiet)
	if latest := c.first.Add(c.latest); latest.Before(at) {
		at = latest
	}
	return at, true
}

// take returns the pending event if it is due.
func (c *coalescer) take(now time.Time) (Change, bool) {
	at, ok := c.due()
	if !ok || now.Before(at) {
		return Change{}, false
	}
	out := c.pending
	c.pending = Change{}
	return out, true
}

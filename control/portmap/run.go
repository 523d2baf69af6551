package portmap

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

const (
	// probeWindow bounds the first round of questions, acquireTimeout one request for a mapping.
	probeWindow    = 5 * time.Second
	acquireTimeout = 30 * time.Second
	// probeGrace is how long better protocols may still answer after the first did.
	probeGrace = 750 * time.Millisecond
	// minRenewal keeps a router that grants seconds from being asked all the time (RFC 6887 section 11.2.1).
	minRenewal = 4 * time.Second
	// retryFirst and retryMost bound the pause after a round without a mapping, or after a renewal that failed.
	retryFirst, retryMost = 30 * time.Second, 15 * time.Minute
	// announcementDelay spreads the clients of a router that restarted; announcementPause is the least time
	// between two renewals that announcements cause, since anybody on the LAN can forge one.
	announcementDelay, announcementPause = 5 * time.Second, 30 * time.Second
	// announcementQueue is how many announcements wait for judgement.
	announcementQueue = 4
)

// Run obtains the mapping and keeps it until ctx ends, then removes it within [ReleaseTimeout]. Trouble with
// the router is reported through events and retried, so that the error is nil after an orderly end; it wraps
// the failure when the mapping could not be removed, which then ends with its lifetime.
func (c *Client) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	announcements := make(chan announcement, announcementQueue)
	wg.Go(func() {
		if err := protect(func() error { return c.listen(ctx, announcements) }); err != nil && ctx.Err() == nil {
			c.log.Debug("router announcements are not heard", "error", err)
		}
	})
	err := protect(func() error { return c.keep(ctx, announcements) })
	cancel()
	wg.Wait()
	return errors.Join(err, c.letGo(context.WithoutCancel(ctx)))
}

// protect turns a panic into an error: trouble with a router must not end the program.
func protect(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("port mapping: panic: %v", r)
		}
	}()
	return f()
}

// letGo removes the mapping that is held. Where the last request ended without an answer there may be one
// too, but failing to remove that is no news.
func (c *Client) letGo(ctx context.Context) error {
	p, granted := c.held, c.granted
	c.held, c.granted = nil, false
	c.report(Event{}) // whoever advertises the mapping must stop
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, ReleaseTimeout)
	defer cancel()
	err := protect(func() error { return p.release(ctx) })
	switch {
	case err == nil:
		return nil
	case !granted:
		c.log.Debug("no mapping removed", "protocol", string(p.name()), "error", err)
		return nil
	}
	return fmt.Errorf("remove %s port mapping: %w", p.name(), err)
}

// keep alternates between looking for a mapping and holding it until ctx ends.
func (c *Client) keep(ctx context.Context, announcements <-chan announcement) error {
	pause := retryFirst
	for ctx.Err() == nil {
		p, granted, err := c.obtain(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			c.report(Event{Err: err})
			var refused *RefusedError
			wait := pause
			if errors.As(err, &refused) {
				wait = min(max(wait, refused.RetryAfter), retryMost)
			}
			c.wait(ctx, jitter(wait))
			pause = min(2*pause, retryMost)
		default:
			pause = retryFirst
			c.hold(ctx, p, granted, announcements)
			c.granted = c.granted && ctx.Err() != nil
		}
	}
	return nil
}

// wait returns after d, on Refresh or when ctx ends.
func (c *Client) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.refresh:
	case <-ctx.Done():
	}
}

// jitter adds up to a tenth.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/10+1) }

// obtain probes all protocols and requests the mapping through those that answered, in order of preference.
func (c *Client) obtain(ctx context.Context) (protocol, lease, error) {
	results := c.probe(ctx)
	var failures []error
	for i, p := range c.protocols {
		err := results[i]
		if errors.Is(err, errUnfinished) {
			err = c.probeOne(ctx, p)
		}
		if err == nil {
			var granted lease
			if granted, err = c.acquire(ctx, p, netip.AddrPort{}); err == nil {
				return p, granted, nil
			}
		}
		c.log.Debug("no mapping", "protocol", string(p.name()), "error", err)
		failures = append(failures, fmt.Errorf("%s: %w", p.name(), err))
	}
	return nil, lease{}, c.explain(failures)
}

// explain picks the one error to show: a refusal says most, then an answer that made no sense, then silence.
func (c *Client) explain(failures []error) error {
	var telling error
	for _, f := range failures {
		var refused *RefusedError
		if errors.As(f, &refused) {
			return refused
		}
		if telling == nil && !errors.Is(f, errNoAnswer) && !errors.Is(f, errNotSpoken) &&
			!errors.Is(f, context.DeadlineExceeded) && !errors.Is(f, context.Canceled) {
			telling = f
		}
	}
	if telling != nil {
		return fmt.Errorf("ask router %s for a port mapping: %w", c.cfg.Gateway, telling)
	}
	return &NoAnswerError{Gateway: c.cfg.Gateway, Port: c.cfg.InternalPort, Tried: failures}
}

// probe asks in all protocols at once and gives an error or nil for each, errUnfinished for those it did not
// wait for. It returns when the best one that answers is known or the grace after an answer has passed.
func (c *Client) probe(ctx context.Context) []error {
	ctx, cancel := context.WithTimeout(ctx, probeWindow)
	type result struct {
		index int
		err   error
	}
	results := make(chan result, len(c.protocols))
	errs := make([]error, len(c.protocols))
	var wg sync.WaitGroup
	for i, p := range c.protocols {
		errs[i] = errUnfinished
		wg.Go(func() { results <- result{i, protect(func() error { return p.probe(ctx) })} })
	}
	// Every goroutine has ended before its protocol is used again.
	defer wg.Wait()
	defer cancel()
	var grace <-chan time.Time
	for range c.protocols {
		select {
		case r := <-results:
			errs[r.index] = r.err
			if r.err == nil && grace == nil {
				grace = time.After(probeGrace)
			}
		case <-grace:
			return errs
		}
		if bestKnown(errs) {
			return errs
		}
	}
	return errs
}

// bestKnown reports whether a protocol answered and all better ones are known not to.
func bestKnown(errs []error) bool {
	for _, err := range errs {
		switch {
		case err == nil:
			return true
		case errors.Is(err, errUnfinished):
			return false
		}
	}
	return false
}

// probeOne asks in one protocol that the common round did not wait for.
func (c *Client) probeOne(ctx context.Context, p protocol) error {
	ctx, cancel := context.WithTimeout(ctx, probeWindow)
	defer cancel()
	return protect(func() error { return p.probe(ctx) })
}

// acquire requests the mapping in a bounded time and judges the external address.
func (c *Client) acquire(ctx context.Context, p protocol, previous netip.AddrPort) (lease, error) {
	ctx, cancel := context.WithTimeout(ctx, acquireTimeout)
	defer cancel()
	want := request{external: previous, lifetime: c.cfg.Lifetime}
	if !previous.IsValid() {
		want.external = netip.AddrPortFrom(netip.IPv4Unspecified(), c.cfg.InternalPort)
	}
	var granted lease
	// Even a request without an answer may have made a mapping.
	if c.held != p {
		c.held, c.granted = p, false
	}
	err := protect(func() (err error) {
		granted, err = p.acquire(ctx, want)
		return err
	})
	if err != nil {
		return lease{}, err
	}
	c.granted = true
	granted.lifetime = min(granted.lifetime, MaxLifetime)
	c.report(c.event(p, granted, time.Now()))
	return granted, nil
}

// event describes a lease.
func (c *Client) event(p protocol, l lease, now time.Time) Event {
	e := Event{Mapping: Mapping{External: l.external, Protocol: p.name()}}
	if !l.permanent {
		e.Mapping.Expires = now.Add(l.lifetime)
	}
	if address := l.external.Addr(); !isPublic(address) {
		e.Err = &DoubleNATError{Protocol: p.name(), External: l.external, CarrierGrade: isShared(address)}
	}
	return e
}

// hold renews the mapping until it is lost or ctx ends.
func (c *Client) hold(ctx context.Context, p protocol, granted lease, announcements <-chan announcement) {
	expires := time.Now().Add(granted.lifetime)
	renewal := time.NewTimer(renewalIn(granted.lifetime))
	defer renewal.Stop()
	var lastAnnounced time.Time
	retry := retryFirst
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-announcements:
			if !p.announced(a) || !lastAnnounced.IsZero() && a.at.Sub(lastAnnounced) < announcementPause {
				continue
			}
			lastAnnounced = a.at
			c.log.Info("router lost its state, renewing the mapping", "protocol", string(p.name()))
			renewal.Reset(rand.N(announcementDelay))
			continue
		case <-c.refresh:
		case <-renewal.C:
		}
		renewed, err := c.acquire(ctx, p, granted.external)
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			granted, expires, retry = renewed, now.Add(renewed.lifetime), retryFirst
			renewal.Reset(renewalIn(granted.lifetime))
			continue
		case lost(err) || !now.Before(expires):
			c.log.Info("port mapping lost", "protocol", string(p.name()), "error", err)
			return
		}
		// The mapping may be gone already, as when the network has changed: that shows in the router's next answer only.
		wait := min(jitter(retry), renewalIn(expires.Sub(now)))
		retry = min(2*retry, retryMost)
		c.log.Warn("port mapping not renewed", "protocol", string(p.name()), "error", err, "retry_in", wait)
		renewal.Reset(wait)
	}
}

// lost reports whether an error of a renewal means that waiting for the next one is of no use.
func lost(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) || errors.Is(err, errNotSpoken)
}

// renewalIn gives the pause before a renewal when the mapping lives for another d: half of it and up to an
// eighth more (RFC 6887 section 11.2.1).
func renewalIn(d time.Duration) time.Duration { return max(d/2+rand.N(d/8+1), minRenewal) }

package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

const (
	pingCount    = 5
	pingInterval = 50 * time.Millisecond
	// requestsPerSecond of the RTT checks; a thousand give a p99.9 after a second.
	requestsPerSecond = 1000
	// slack is how much longer than it means to a check may take before it has failed.
	slack = 6 * time.Second
	// loadHeadStart is how long a TCP stream runs alone, so that it is at speed when round trips are measured.
	loadHeadStart = 300 * time.Millisecond
)

// trial is a check that has not been run.
type trial struct {
	name   string
	kind   Kind
	target string
	run    func(ctx context.Context, c *Check) error // fills in the values
}

func (t trial) check() Check { return Check{Name: t.name, Kind: t.kind, Target: t.target} }

// measure runs all trials one after the other and shows them; one that fails does not keep the others from being run.
func measure(ctx context.Context, trials []trial, limit time.Duration, view View) ([]Check, error) {
	var planned, done []Check
	for _, t := range trials {
		planned = append(planned, t.check())
	}
	table := view.Table(planned)
	for _, t := range trials {
		c := t.check()
		table.Begin(c)
		limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %v", limit))
		err := t.run(limited, &c)
		cancel()
		if ctx.Err() != nil {
			return done, context.Cause(ctx)
		}
		c.OK = err == nil
		if err != nil {
			c.Error = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		done = append(done, c)
		table.Done(c)
	}
	return done, nil
}

// trials lists what is tried, given the gateway's addresses in the tunnel.
func (n *network) trials(gateway []netip.Addr, duration time.Duration) []trial {
	var list []trial
	for _, a := range gateway {
		list = append(list, n.ping("ping gateway", a))
	}
	for _, a := range []string{lanHost4, lanHost6} {
		list = append(list, n.ping("ping LAN host", netip.MustParseAddr(a)))
	}
	list = append(list, n.page("web page, IPv4", "http://"+lanHost4+"/"), n.page("web page, IPv6", "http://["+lanHost6+"]/"))
	return append(list,
		n.throughput("TCP laptop → LAN host", duration, false),
		n.throughput("TCP LAN host → laptop", duration, true),
		n.idleRTT(duration),
		n.loadedRTT(duration),
	)
}

func (n *network) ping(name string, to netip.Addr) trial {
	family := ", IPv4"
	if to.Is6() {
		family = ", IPv6"
	}
	return trial{name + family, KindPing, to.String(), func(ctx context.Context, c *Check) error {
		r, err := traffic.Ping{Count: pingCount, Interval: pingInterval}.Run(ctx, n.laptop, to)
		if err != nil {
			return err
		}
		c.Sent, c.Received, c.RTT = r.Sent, r.Received, distribution(r.RTT)
		if r.Lost() > 0 {
			err = fmt.Errorf("%d of %d answered", r.Received, r.Sent)
			for _, e := range r.Errors[:min(1, len(r.Errors))] {
				err = fmt.Errorf("%w; %v", err, e)
			}
		}
		return err
	}}
}

func (n *network) page(name, url string) trial {
	return trial{name, KindPage, url, func(ctx context.Context, c *Check) error {
		page, err := traffic.Fetch(ctx, n.laptop, url)
		if err != nil {
			return err
		}
		c.HTTPStatus, c.PageBytes, c.PageTime = page.Status, len(page.Body), page.Elapsed
		if page.Status != http.StatusOK || string(page.Body) != pageText {
			return fmt.Errorf("not the page: status %d, %d bytes", page.Status, len(page.Body))
		}
		return nil
	}}
}

func (n *network) throughput(name string, duration time.Duration, download bool) trial {
	return trial{name, KindThroughput, lanHost4, func(ctx context.Context, c *Check) error {
		bulk := traffic.Bulk{Duration: duration, Download: download}
		r, err := bulk.Run(ctx, n.laptop, n.traffic.Addr())
		c.BitsPerSecond = r.BitsPerSecond()
		if err == nil && c.BitsPerSecond <= 0 {
			err = errors.New("nothing arrived")
		}
		return err
	}}
}

func (n *network) idleRTT(duration time.Duration) trial {
	return trial{"round trip, idle", KindRTT, lanHost4, func(ctx context.Context, c *Check) error {
		return n.echo(ctx, c, duration)
	}}
}

func (n *network) loadedRTT(duration time.Duration) trial {
	return trial{"round trip, beside TCP", KindRTT, lanHost4, func(ctx context.Context, c *Check) error {
		both, ctx := errgroup.WithContext(ctx)
		both.Go(func() error {
			r, err := traffic.Bulk{Duration: duration + 2*loadHeadStart}.Run(ctx, n.laptop, n.traffic.Addr())
			c.BitsPerSecond = r.BitsPerSecond()
			return err
		})
		both.Go(func() error {
			select {
			case <-time.After(loadHeadStart):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			return n.echo(ctx, c, duration)
		})
		return both.Wait()
	}}
}

// echo measures round trips. Loss is fine beside a TCP stream that fills every queue, silence is not.
func (n *network) echo(ctx context.Context, c *Check, duration time.Duration) error {
	echo := traffic.Echo{PerSecond: requestsPerSecond, Duration: duration}
	r, err := echo.Run(ctx, n.laptop, n.traffic.Addr())
	c.Sent, c.Received, c.RTT = r.Sent, r.Received, distribution(r.RTT)
	if err == nil && r.Received == 0 {
		err = fmt.Errorf("none of %d requests answered", r.Sent)
	}
	return err
}

func distribution(d traffic.Distribution) RTT {
	return RTT{P50: d.Quantile(0.5), P99: d.Quantile(0.99), P999: d.Quantile(0.999)}
}

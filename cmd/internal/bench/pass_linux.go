package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

const (
	manyStreams       = 8
	smallBytes        = 64
	cleanLoss         = 0.01
	requestsPerSecond = 1000
	// loadHeadStart is how long a TCP stream runs alone, so that it is at speed when round trips are measured.
	loadHeadStart = 300 * time.Millisecond
	// slack is how much longer than it means to a measurement may take before it has failed.
	slack = 20 * time.Second

	// Of a search for the clean rate: how long one rate is tried, as a part of a measurement, and roughly how many.
	attemptPart     = 5
	minAttempt      = 100 * time.Millisecond
	usualAttempts   = 12
	attemptOverhead = 300 * time.Millisecond
)

// plan is how long things take.
type plan struct {
	duration time.Duration // of each measurement
}

func (p plan) attempt() time.Duration { return max(minAttempt, p.duration/attemptPart) }

func (p plan) search() time.Duration { return usualAttempts * (p.attempt() + attemptOverhead) }

// pass is roughly how long a pass takes.
func (p plan) pass() time.Duration { return 6*p.duration + 2*loadHeadStart + p.search() }

// pass is one pass over a site.
type pass struct {
	plan
	*site
	progress *Progress
	sample   Sample
}

// measure runs all measurements, one after the other.
func (s *site) measure(ctx context.Context, plan plan, progress *Progress) (Sample, error) {
	p := &pass{plan: plan, site: s, progress: progress, sample: make(Sample)}
	for _, part := range []func(context.Context) error{p.throughput, p.smallPackets, p.idleRTT, p.loadedRTT, p.memory} {
		if err := part(ctx); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return p.sample, nil
}

// throughput measures TCP, and the CPU time that the daemons take for it.
func (p *pass) throughput(ctx context.Context) error {
	before, err := p.usage()
	if err != nil {
		return err
	}
	var bytes int64
	for _, m := range []struct {
		key, name string
		bulk      traffic.Bulk
	}{
		{KeyTCPUp, "TCP, 1 stream up", traffic.Bulk{Streams: 1}},
		{KeyTCPDown, "TCP, 1 stream down", traffic.Bulk{Streams: 1, Download: true}},
		{KeyTCP8Up, "TCP, 8 streams up", traffic.Bulk{Streams: manyStreams}},
		{KeyTCP8Down, "TCP, 8 streams down", traffic.Bulk{Streams: manyStreams, Download: true}},
	} {
		p.progress.step(m.name, p.duration)
		m.bulk.Duration = p.duration
		r, err := p.bulk(ctx, m.bulk)
		if err != nil {
			return err
		}
		p.sample[m.key] = r.BitsPerSecond()
		bytes += r.Bytes
	}
	after, err := p.usage()
	if err == nil && len(p.processes) > 0 && bytes > 0 {
		p.sample[KeyCPU] = (after.CPU - before.CPU).Seconds() / (float64(bytes) / 1e9)
	}
	return err
}

func (p *pass) bulk(ctx context.Context, b traffic.Bulk) (traffic.BulkResult, error) {
	limit := b.Duration + slack
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("TCP not done after %v", limit))
	defer cancel()
	r, err := b.Run(ctx, p.client, p.traffic.Addr())
	if err == nil && r.Bytes == 0 {
		err = errors.New("TCP carried nothing")
	}
	return r, err
}

// smallPackets searches for the highest clean rate.
func (p *pass) smallPackets(ctx context.Context) error {
	p.progress.step("small packets", p.search())
	rate, err := cleanRate(func(rate float64) (attempt, error) {
		paced := traffic.Paced{Bytes: smallBytes, PacketsPerSecond: rate, Duration: p.attempt()}
		r, err := paced.Run(ctx, p.client, p.traffic.Addr())
		return attempt{sent: r.SentPerSecond(), clean: r.Sent > 0 && r.Refused == 0 && r.LossRatio() < cleanLoss}, err
	})
	if err == nil && rate == 0 {
		err = fmt.Errorf("small packets: %.0f %% or more are lost at every rate", 100*cleanLoss)
	}
	p.sample[KeySmall] = rate
	return err
}

func (p *pass) idleRTT(ctx context.Context) error {
	p.progress.step("round trips, idle", p.duration)
	return p.echo(ctx, KeyIdleP50, KeyIdleP99, KeyIdleP999)
}

// loadedRTT measures round trips beside one TCP stream up.
func (p *pass) loadedRTT(ctx context.Context) error {
	p.progress.step("round trips beside TCP", p.duration+2*loadHeadStart)
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error {
		_, err := p.bulk(ctx, traffic.Bulk{Duration: p.duration + 2*loadHeadStart})
		return err
	})
	both.Go(func() error {
		select {
		case <-time.After(loadHeadStart):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return p.echo(ctx, KeyLoadedP50, KeyLoadedP99, KeyLoadedP999)
	})
	return both.Wait()
}

func (p *pass) echo(ctx context.Context, keyP50, keyP99, keyP999 string) error {
	echo := traffic.Echo{Bytes: smallBytes, PerSecond: requestsPerSecond, Duration: p.duration}
	r, err := echo.Run(ctx, p.client, p.traffic.Addr())
	if err == nil && r.Received == 0 {
		err = fmt.Errorf("none of %d requests answered", r.Sent)
	}
	p.sample[keyP50] = r.RTT.Quantile(0.5).Seconds()
	p.sample[keyP99] = r.RTT.Quantile(0.99).Seconds()
	p.sample[keyP999] = r.RTT.Quantile(0.999).Seconds()
	return err
}

// memory is the peak of the larger daemon so far.
func (p *pass) memory(context.Context) error {
	usage, err := p.usage()
	if err == nil && len(p.processes) > 0 {
		p.sample[KeyMemory] = float64(usage.PeakRSSBytes)
	}
	return err
}

// usage is the CPU time of all daemons of the site together and the peak memory of the larger.
func (s *site) usage() (lab.Usage, error) {
	var sum lab.Usage
	for _, pid := range s.processes {
		u, err := lab.ProcessUsage(pid)
		if err != nil {
			return sum, err
		}
		sum.CPU += u.CPU
		sum.PeakRSSBytes = max(sum.PeakRSSBytes, u.PeakRSSBytes)
	}
	return sum, nil
}

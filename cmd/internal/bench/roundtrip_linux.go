package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

// sparseRate is how many requests are sent in a second where they do not wait for each other: enough for a p99.9.
const sparseRate = 1000

// loadedRTT measures round trips beside one TCP stream up.
func (p *pass) loadedRTT(ctx context.Context) error {
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
		return p.echo(ctx, sparseRate, KeyLoadedP50, KeyLoadedP99, KeyLoadedP999)
	})
	return both.Wait()
}

// echo measures round trips of so many requests per second, or with 0 of one after the other.
func (p *pass) echo(ctx context.Context, perSecond float64, keyP50, keyP99, keyP999 string) error {
	echo := traffic.Echo{Bytes: smallBytes, PerSecond: perSecond, Duration: p.duration}
	r, err := echo.Run(ctx, p.client, p.traffic.Addr())
	if err == nil && r.Received == 0 {
		err = fmt.Errorf("none of %d requests answered", r.Sent)
	}
	p.sample[keyP50] = r.RTT.Quantile(0.5).Seconds()
	p.sample[keyP99] = r.RTT.Quantile(0.99).Seconds()
	p.sample[keyP999] = r.RTT.Quantile(0.999).Seconds()
	return err
}

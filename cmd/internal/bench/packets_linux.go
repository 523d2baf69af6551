package bench

import (
	"context"
	"fmt"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

const (
	smallBytes = 64
	// largeBytes makes IPv4 packets of 1400 bytes, which every tunnel passes whole.
	largeBytes = 1400 - 20 - 8
	cleanLoss  = 0.01
	// costRate is how many packets per second are sent to find what one costs.
	costRate = 40e3
)

// cleanRate searches for the highest rate at which less than 1 % of packets with so much payload is lost.
func (p *pass) cleanRate(ctx context.Context, key string, bytes int) error {
	rate, err := cleanRate(p.searchSteps(), func(rate float64) (attempt, error) {
		r, err := p.paced(ctx, traffic.Paced{Bytes: bytes, PacketsPerSecond: rate, Duration: p.attempt()})
		return attempt{sent: r.SentPerSecond(), clean: r.Sent > 0 && r.Refused == 0 && r.LossRatio() < cleanLoss}, err
	})
	if err == nil && rate == 0 {
		err = fmt.Errorf("%.0f %% or more are lost at every rate", 100*cleanLoss)
	}
	p.sample[key] = rate
	return err
}

func (p *pass) paced(ctx context.Context, flow traffic.Paced) (traffic.PacedResult, error) {
	return flow.Run(ctx, p.client, p.traffic.Addr())
}

// packetCost measures the CPU time that the daemons take for small packets at a rate. It counts those that arrive.
func (p *pass) packetCost(ctx context.Context) error {
	before, err := p.cpu()
	if err != nil {
		return err
	}
	r, err := p.paced(ctx, traffic.Paced{Bytes: smallBytes, PacketsPerSecond: costRate, Duration: p.duration})
	if err != nil {
		return err
	}
	after, err := p.cpu()
	if err != nil {
		return err
	}
	switch {
	case r.Received == 0:
		return fmt.Errorf("none of %d packets arrived", r.Sent)
	case r.SentPerSecond() < keepsPace*costRate:
		p.remark("the sender of %s reached %.0f packets per second, not %.0f.", rowCost, r.SentPerSecond(), costRate)
	case r.LossRatio() >= cleanLoss:
		p.remark("%.1f %% of the packets of %s were lost.", 100*r.LossRatio(), rowCost)
	}
	if len(p.processes) > 0 {
		p.sample[KeyPacketCPU] = (after.daemons - before.daemons).Seconds() / (float64(r.Received) / 1e6)
	}
	return nil
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

// slack is how much longer than it means to a measurement may take before it has failed.
const slack = 20 * time.Second

// throughput measures TCP, and the CPU time that it takes.
func (p *pass) throughput(ctx context.Context, r Row) error {
	duration := p.duration
	if r.place == wan {
		duration *= wanParts
	}
	before, err := p.cpu()
	if err != nil {
		return err
	}
	var bytes int64
	for _, l := range r.loads {
		result, err := p.bulk(ctx, traffic.Bulk{Streams: l.streams, Download: l.down, Duration: duration})
		if err != nil {
			return err
		}
		p.sample[r.prefix+l.key] = result.BitsPerSecond()
		bytes += result.Bytes
	}
	after, err := p.cpu()
	if err != nil {
		return err
	}
	gigabytes := float64(bytes) / 1e9
	if len(p.processes) > 0 {
		p.sample[r.prefix+KeyCPU] = (after.daemons - before.daemons).Seconds() / gigabytes
	}
	p.sample[r.prefix+KeyAllCPU] = (after.all - before.all).Seconds() / gigabytes
	return p.checkEmulator()
}

// checkEmulator remarks on packets that an emulated link has lost without being told to.
func (p *pass) checkEmulator() error {
	if p.emulator == nil {
		return nil
	}
	for _, d := range []lab.Direction{lab.AToB, lab.BToA} {
		overruns, err := p.emulator.Overruns(d)
		if err != nil {
			return err
		}
		if lost := overruns + p.emulator.Counters(d).Refused; lost > 0 {
			p.remark("the emulated link was too slow for %d packets, beyond those that it was to lose.", lost)
		}
	}
	return nil
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

// likeNIC are the offloads of a plain network interface: single packets cross the cable, cut in software by the sender
// and joined by the receiver.
func likeNIC() lab.Offloads { return lab.Offloads{TxChecksum: true, GSO: true, GRO: true} }

// likeWire is without the joining and without any batch in the sender's kernel, so that every packet costs its full price.
func likeWire() lab.Offloads { return lab.Offloads{TxChecksum: true} }

// withOffloads runs f while both ends of the cable have other offloads.
func (p *pass) withOffloads(o lab.Offloads, f func() error) (err error) {
	for _, end := range p.near {
		before, err := end.Offloads()
		if err != nil {
			return err
		}
		if err := end.SetOffloads(o); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end.SetOffloads(before)) }()
	}
	return f()
}

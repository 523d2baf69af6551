package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/bench/crowd"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

// crowdWarmUp is how long a crowd has traffic before it is measured, and crowdSetup what crowds of ten thousand take to
// make.
const crowdWarmUp, crowdSetup = 100 * time.Millisecond, 30 * time.Second

// CrowdOptions says what crowd to measure.
type CrowdOptions struct {
	Peers    int           // more than ActiveMembers
	Duration time.Duration // of each measurement
	Passes   int
	Progress *Progress
}

// RunCrowd measures the memory of a peer, and then a gateway with ActiveMembers peers, all of them active, and one with
// many more, in turns, both in this process. A machine that others use too changes its speed from second to second, so
// turns are short, and whether the few or the many come first changes from pass to pass.
func RunCrowd(ctx context.Context, o CrowdOptions) (report CrowdReport, err error) {
	if o.Peers <= ActiveMembers || o.Peers > crowd.MaxPeers {
		return report, fmt.Errorf("crowd of %d peers: want %d to %d", o.Peers, ActiveMembers+1, crowd.MaxPeers)
	}
	machine, err := thisMachine()
	if err != nil {
		return report, err
	}
	place, err := lab.NewNamespace("crowd")
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, place.Close()) }()
	defer o.Progress.end()
	report = CrowdReport{
		Machine: machine, Began: time.Now(), Seconds: o.Duration.Seconds(), Passes: o.Passes, Active: ActiveMembers,
	}
	r := crowdRun{CrowdOptions: o, place: place}
	if report.Memory, err = crowd.MeasureMemory(ctx, r.config(o.Peers)); err != nil {
		return report, err
	}
	if err := r.takeTurns(ctx); err != nil {
		return report, err
	}
	r.results(&report)
	return report, nil
}

// crowdRun is one comparison.
type crowdRun struct {
	CrowdOptions
	place *lab.Namespace
	few   []crowdSample // by pass
	many  []crowdSample
	setup [2]float64 // seconds, of both
}

// crowdSample is what one pass of one crowd gave.
type crowdSample struct {
	up, down, upCPU, downCPU float64
	lost                     uint64
}

func (r *crowdRun) config(peers int) crowd.Config {
	return crowd.Config{Peers: peers, Active: ActiveMembers, Socket: func(ctx context.Context) (conn *udp.Conn, err error) {
		err = r.place.Do(func() error {
			conn, err = udp.Open(ctx, udp.Config{Address: netip.MustParseAddrPort("127.0.0.1:0")})
			return err
		})
		return conn, err
	}}
}

// open makes a crowd that rests.
func (r *crowdRun) open(ctx context.Context, peers int) (*crowd.Crowd, float64, error) {
	r.Progress.pass(0, r.Passes, fmt.Sprintf("%d lanes", peers))
	r.Progress.step("negotiation", crowdSetup*time.Duration(peers)/time.Duration(peers+ActiveMembers))
	began := time.Now()
	c, err := crowd.Open(ctx, r.config(peers))
	if err != nil {
		return nil, 0, err
	}
	c.Rest(true)
	return c, time.Since(began).Seconds(), nil
}

func (r *crowdRun) takeTurns(ctx context.Context) (err error) {
	one := r.Duration + crowdWarmUp
	r.Progress.start(time.Duration(r.Passes)*4*one + crowdSetup)
	var crowds [2]*crowd.Crowd
	for i, peers := range [...]int{ActiveMembers, r.Peers} {
		if crowds[i], r.setup[i], err = r.open(ctx, peers); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, crowds[i].Close()) }()
	}
	for pass := range r.Passes {
		var samples [2]crowdSample
		for _, d := range [...]crowd.Direction{crowd.Up, crowd.Down} {
			for turn := range crowds {
				i := (turn + pass) % len(crowds)
				r.Progress.pass(pass+1, r.Passes, fmt.Sprintf("%d peers", [...]int{ActiveMembers, r.Peers}[i]))
				r.Progress.step(d.String(), one)
				if err := r.measure(ctx, crowds[i], d, &samples[i]); err != nil {
					return err
				}
			}
		}
		r.few, r.many = append(r.few, samples[0]), append(r.many, samples[1])
	}
	return nil
}

// measure measures the traffic of a crowd in one direction.
func (r *crowdRun) measure(ctx context.Context, c *crowd.Crowd, d crowd.Direction, s *crowdSample) error {
	c.Rest(false)
	defer c.Rest(true)
	if _, err := c.Run(ctx, d, crowdWarmUp); err != nil {
		return err
	}
	before, err := lab.ProcessUsage(os.Getpid())
	if err != nil {
		return err
	}
	flow, err := c.Run(ctx, d, r.Duration)
	if err != nil {
		return err
	}
	after, err := lab.ProcessUsage(os.Getpid())
	if err != nil {
		return err
	}
	if flow.Bytes == 0 {
		return fmt.Errorf("crowd: nothing arrived %v", d)
	}
	rate, cpu := flow.BitsPerSecond(), (after.CPU-before.CPU).Seconds()/(float64(flow.Bytes)/1e9)
	if s.lost += flow.Lost; d == crowd.Up {
		s.up, s.upCPU = rate, cpu
	} else {
		s.down, s.downCPU = rate, cpu
	}
	return nil
}

func (r *crowdRun) results(report *CrowdReport) {
	of := func(samples []crowdSample, value func(crowdSample) float64) Summary {
		var all []float64
		for _, s := range samples {
			all = append(all, value(s))
		}
		return summarise(all)
	}
	parts := [...]func(crowdSample) float64{
		func(s crowdSample) float64 { return s.up }, func(s crowdSample) float64 { return s.down },
		func(s crowdSample) float64 { return s.upCPU }, func(s crowdSample) float64 { return s.downCPU },
	}
	result := func(peers int, samples []crowdSample, setup float64) CrowdResult {
		c := CrowdResult{
			Peers: peers, Up: of(samples, parts[0]), Down: of(samples, parts[1]), UpCPU: of(samples, parts[2]),
			DownCPU: of(samples, parts[3]), SetupSeconds: setup,
		}
		for _, s := range samples {
			c.LostBytes += s.lost
		}
		return c
	}
	report.Few, report.Many = result(ActiveMembers, r.few, r.setup[0]), result(r.Peers, r.many, r.setup[1])
	ratios := make([]crowdSample, len(r.few))
	for i, few := range r.few {
		many := r.many[i]
		ratios[i] = crowdSample{
			up: many.up / few.up, down: many.down / few.down, upCPU: many.upCPU / few.upCPU, downCPU: many.downCPU / few.downCPU,
		}
	}
	report.Ratios = CrowdRatios{
		Up: of(ratios, parts[0]), Down: of(ratios, parts[1]), UpCPU: of(ratios, parts[2]), DownCPU: of(ratios, parts[3]),
	}
}

package bench

import (
	"context"
	"errors"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage"
)

// Options says what to measure.
type Options struct {
	Version  string        // of this build
	Duration time.Duration // of each measurement
	Passes   int           // of each contender
	// Rival is the absolute path of a wireguard-go to measure beside, or empty.
	Rival    string
	Progress *Progress
}

// Run measures. It must run in a process that [stage.Prepare] has prepared. An error says what failed and quotes the
// daemons' logs.
func Run(ctx context.Context, o Options) (report Report, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b := &run{Options: o, plan: plan{duration: o.Duration}}
	defer func() {
		o.Progress.end()
		var daemons []*stage.Aetherd
		for _, s := range b.sites {
			daemons = append(daemons, s.daemons...)
		}
		err = stage.Verdict(err, b.close(), daemons...)
	}()
	machine, err := thisMachine()
	if err != nil {
		return report, err
	}
	report = Report{Machine: machine, Began: time.Now(), Seconds: o.Duration.Seconds(), Passes: o.Passes, Measures: Measures()}
	if err := b.open(ctx, cancel); err != nil {
		return report, err
	}
	if err := b.takeTurns(ctx); err != nil {
		return report, err
	}
	b.results(&report)
	return report, nil
}

// run is one benchmark.
type run struct {
	Options
	plan

	sites   []*site
	samples [][]Sample // of each site, by pass
}

// open sets all contenders up.
func (b *run) open(ctx context.Context, cancel context.CancelCauseFunc) error {
	add := func(s *site, err error) error {
		b.sites = append(b.sites, s)
		b.samples = append(b.samples, nil)
		return err
	}
	if err := add(bareLink(ctx)); err != nil {
		return err
	}
	if err := add(aetherdSite(ctx, b.Version, cancel)); err != nil {
		return err
	}
	if b.Rival == "" {
		return nil
	}
	version, err := CheckRival(ctx, b.Rival)
	if err != nil {
		return err
	}
	return add(wireguardSite(ctx, b.Rival, version, cancel))
}

// takeTurns measures one contender after the other, as often as there are passes.
func (b *run) takeTurns(ctx context.Context) error {
	b.Progress.start(time.Duration(b.Passes*len(b.sites)) * b.pass())
	for i := range b.Passes {
		for j, s := range b.sites {
			b.Progress.pass(i+1, b.Passes, s.name)
			sample, err := s.measure(ctx, b.plan, b.Progress)
			if err != nil {
				return err
			}
			b.samples[j] = append(b.samples[j], sample)
		}
	}
	return nil
}

func (b *run) results(report *Report) {
	for i, s := range b.sites {
		report.Contenders = append(report.Contenders, Contender{
			Name: s.name, Version: s.version, Results: Summarise(b.samples[i]),
		})
	}
	ours := report.Contenders[1]
	for i, other := range report.Contenders {
		if i != 1 {
			report.Ratios = append(report.Ratios, Compare(ours, other)...)
		}
	}
}

func (b *run) close() error {
	var errs []error
	for _, s := range b.sites {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

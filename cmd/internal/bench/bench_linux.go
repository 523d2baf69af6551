package bench

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage"
)

// ownName is the name of our own column.
const ownName = "aetherd"

// Options says what to measure.
type Options struct {
	Version  string        // of this build
	Rows     []Row         // see [ParseRows]
	Duration time.Duration // of each measurement
	Passes   int           // of each contender
	Rival    Rival         // to measure beside
	Progress *Progress
}

// Run measures. It must run in a process that [stage.Prepare] has prepared. An error says what failed and quotes the
// daemons' logs.
func Run(ctx context.Context, o Options) (report Report, err error) {
	defer o.Progress.end()
	machine, err := thisMachine()
	if err != nil {
		return report, err
	}
	b := &run{Options: o, plan: plan{duration: o.Duration}}
	if err := b.pickContenders(ctx); err != nil {
		return report, err
	}
	report = Report{
		Machine: machine, Began: time.Now(), Seconds: o.Duration.Seconds(), Passes: o.Passes,
		Rows: names(o.Rows), Measures: Measures(o.Rows),
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

	contenders []contender // the bare link, this build and its rival, if it has one
	samples    [][]Sample  // of each contender, by pass
	remarks    []string
	sites      int // made so far
}

func (b *run) pickContenders(ctx context.Context) error {
	b.contenders = []contender{bareLink{}, aetherd{column: ownName, build: b.Version}}
	switch {
	case b.Rival.Self:
		b.contenders = append(b.contenders, aetherd{column: ownName + " again", build: b.Version})
	case b.Rival.Path != "":
		version, err := CheckRival(ctx, b.Rival.Path)
		if err != nil {
			return err
		}
		b.contenders = append(b.contenders, wireguard{path: b.Rival.Path, build: version})
	}
	b.samples = make([][]Sample, len(b.contenders))
	return nil
}

// takeTurns measures row by row, one contender after the other, so that what the machine does besides meets all of them;
// and all of it as often as there are passes.
func (b *run) takeTurns(ctx context.Context) error {
	b.Progress.start(time.Duration(b.Passes*len(b.contenders)) * b.pass(b.Rows))
	for number := range b.Passes {
		for i := range b.contenders {
			b.samples[i] = append(b.samples[i], make(Sample))
		}
		for _, at := range places() {
			if rows := rowsAt(b.Rows, at); len(rows) > 0 {
				if err := b.visit(ctx, number, at, rows); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// visit measures the rows of one place, on sites that live no longer.
func (b *run) visit(ctx context.Context, number int, at place, rows []Row) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var passes []*pass
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		var daemons []*stage.Aetherd
		var closing []error
		for _, p := range passes {
			b.remark(p.remarks)
			daemons = append(daemons, p.daemons...)
			closing = append(closing, p.Close())
		}
		err = stage.Verdict(err, errors.Join(closing...), daemons...)
	}()
	b.Progress.pass(number+1, b.Passes, "set up")
	for i, c := range b.contenders {
		b.Progress.step(c.name(), setup+2*b.plan.warmUp())
		b.sites++
		s, err := openSite(ctx, c, at, b.sites, uint64(number), cancel)
		p := &pass{plan: b.plan, site: s, number: number + 1, sample: b.samples[i][number]}
		passes = append(passes, p)
		if err == nil {
			err = p.warmUp(ctx)
		}
		if err != nil {
			return err
		}
	}
	for i, r := range rows {
		b.Progress.pass(number+1, b.Passes, r.Name)
		for turn := range passes {
			if (number+i)%2 == 1 {
				turn = len(passes) - 1 - turn // nobody is always first
			}
			p := passes[turn]
			b.Progress.step(p.name(), b.row(r))
			if err := p.measure(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *run) results(report *Report) {
	measures := report.Measures
	for i, c := range b.contenders {
		report.Contenders = append(report.Contenders, Contender{
			Name: c.name(), Version: c.version(), Results: Summarise(measures, b.samples[i]),
		})
	}
	ours := report.Contenders[1]
	for i, other := range report.Contenders {
		if i != 1 {
			report.Ratios = append(report.Ratios, Compare(measures, ours, other)...)
		}
	}
	report.Remarks = slices.Concat(b.remarks, generatorRemarks(measures, report.Contenders),
		loadedRemarks(report.Ratios, report.Contenders[0].Name))
}

// remark keeps what somebody has to say, once.
func (b *run) remark(texts []string) {
	for _, text := range texts {
		if !slices.Contains(b.remarks, text) {
			b.remarks = append(b.remarks, text)
		}
	}
}

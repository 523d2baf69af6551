package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

// pass is one pass over a site.
type pass struct {
	plan
	*site
	number  int // from 1
	sample  Sample
	remarks []string
}

// measure takes the measures of a row.
func (p *pass) measure(ctx context.Context, r Row) error {
	var err error
	switch r.Name {
	case rowTCP, rowLAN, rowHub, rowWAN:
		err = p.throughput(ctx, r)
	case rowNIC:
		err = p.withOffloads(likeNIC(), func() error { return p.throughput(ctx, r) })
	case rowNoGSO:
		err = p.withOffloads(likeWire(), func() error { return p.throughput(ctx, r) })
	case rowLarge:
		err = p.cleanRate(ctx, KeyLarge, largeBytes)
	case rowSmall:
		err = p.cleanRate(ctx, KeySmall, smallBytes)
	case rowCost:
		err = p.packetCost(ctx)
	case rowIdle:
		err = p.echo(ctx, 0, KeyIdleP50, KeyIdleP99, KeyIdleP999)
	case rowSparse:
		err = p.echo(ctx, sparseRate, KeySparseP50, KeySparseP99, KeySparseP999)
	case rowLoaded:
		err = p.loadedRTT(ctx)
	case rowMemory:
		err = p.memory()
	default:
		err = errors.New("this row cannot be measured")
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", p.name(), r.Name, err)
	}
	return nil
}

// warmUp sends TCP both ways, so that the contender has found what it has to find about the path.
func (p *pass) warmUp(ctx context.Context) error {
	for _, down := range []bool{false, true} {
		if _, err := p.bulk(ctx, traffic.Bulk{Duration: p.plan.warmUp(), Download: down}); err != nil {
			return fmt.Errorf("%s: warm up: %w", p.name(), err)
		}
	}
	remark, err := p.laneless(ctx)
	if remark != "" {
		p.remark("%s", remark)
	}
	return err
}

// remark notes what makes a number of this pass doubtful.
func (p *pass) remark(format string, args ...any) {
	p.remarks = append(p.remarks, fmt.Sprintf("Pass %d, %s: ", p.number, p.name())+fmt.Sprintf(format, args...))
}

// memory is the peak of the largest daemon so far.
func (p *pass) memory() error {
	for _, pid := range p.processes {
		u, err := lab.ProcessUsage(pid)
		if err != nil {
			return err
		}
		p.sample[KeyMemory] = max(p.sample[KeyMemory], float64(u.PeakRSSBytes))
	}
	return nil
}

package main

import (
	"context"
	"io"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/bench"
	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage"
)

// runBench runs the benchmark, by way of this same program in namespaces of its own.
func runBench(ctx context.Context, out, errOut io.Writer, o benchOptions) error {
	rival, err := findRival(ctx, o.vs)
	if err != nil {
		return err
	}
	if !stage.Inside() {
		return onStage(ctx, "bench", out, errOut)
	}
	if err := stage.Prepare("bench"); err != nil {
		return err
	}
	if o.crowd != 0 {
		return runCrowd(ctx, out, errOut, o)
	}
	report, err := bench.Run(ctx, bench.Options{
		Version: version, Rows: o.rows, Duration: o.duration, Passes: o.passes, Rival: rival,
		Progress: bench.NewProgress(errOut, isTerminal(errOut), time.Now),
	})
	if err != nil {
		return err
	}
	if o.asJSON {
		return printJSON(out, report)
	}
	return bench.WriteTable(out, report, wantsColor(out))
}

// runCrowd measures a gateway with many peers.
func runCrowd(ctx context.Context, out, errOut io.Writer, o benchOptions) error {
	report, err := bench.RunCrowd(ctx, bench.CrowdOptions{
		Peers: o.crowd, Duration: o.duration, Passes: o.passes,
		Progress: bench.NewProgress(errOut, isTerminal(errOut), time.Now),
	})
	if err != nil {
		return err
	}
	if o.asJSON {
		return printJSON(out, report)
	}
	return bench.WriteCrowd(out, report)
}

// findRival reads --vs and makes sure, before anything is built, that the program is what it should be.
func findRival(ctx context.Context, vs string) (bench.Rival, error) {
	rival, err := bench.ParseVs(vs)
	if err == nil && rival.Path != "" {
		_, err = bench.CheckRival(ctx, rival.Path)
	}
	return rival, err
}

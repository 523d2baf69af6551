package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/aethertunnel/aethertunnel/cmd/internal/bench"
)

// Defaults and bounds of bench.
const (
	benchSeconds    = 3.0
	maxBenchSeconds = 300.0
	benchPasses     = 3
	maxBenchPasses  = 100
)

func newBench() *cobra.Command {
	c := &cobra.Command{
		Use: "bench", Short: "Measure this build on this machine", GroupID: "try", Args: cobra.NoArgs,
		Long: `Measure this build against the bare link it runs on, in network namespaces of this machine. With --vs it
measures wireguard-go beside it, in turns, and prints ratios: medians of what each pass finds. Nothing of
the machine's own network is touched. These rows can be chosen with --only; those with a star are usual:

` + bench.RowsHelp() + `
It works as root, and without where the system lets its users have user namespaces and /dev/net/tun.`,
		Example: `  aetherd bench
  aetherd bench --vs wireguard-go=/usr/local/bin/wireguard-go
  aetherd bench --only tcp,udp64 --vs self     # how far apart do equals come out?
  aetherd bench --only all --seconds 10 --passes 5 --json > bench.json`,
	}
	asJSON := jsonFlag(c)
	vs := c.Flags().String("vs", "", "measure another program beside it: `wireguard-go=PATH`, or self, this one once more")
	only := c.Flags().String("only", "", "measure these `ROW,ROW…` only, or all of them: all")
	seconds := c.Flags().Float64("seconds", benchSeconds, "how long each measurement takes")
	passes := c.Flags().Int("passes", benchPasses, "how often each contender is measured")
	// For those who work on aetherd: what peers without traffic cost a gateway.
	crowd := c.Flags().Int("crowd", 0, "measure a gateway with `N` peers, few of them active, inside this process")
	if err := c.Flags().MarkHidden("crowd"); err != nil {
		panic(err) // only a change of the line above can lead here
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		// Written so that not-a-number is refused too.
		if !(*seconds >= minSeconds && *seconds <= maxBenchSeconds) {
			return fmt.Errorf("--seconds %v: want %v to %v", *seconds, minSeconds, maxBenchSeconds)
		}
		if *passes < 1 || *passes > maxBenchPasses {
			return fmt.Errorf("--passes %d: want 1 to %d", *passes, maxBenchPasses)
		}
		rows, err := bench.ParseRows(*only)
		if err != nil {
			return err
		}
		return runBench(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), benchOptions{
			duration: time.Duration(*seconds * float64(time.Second)), passes: *passes, rows: rows, vs: *vs, crowd: *crowd,
			asJSON: *asJSON,
		})
	}
	return c
}

// benchOptions is what the flags of bench say.
type benchOptions struct {
	duration time.Duration // of each measurement
	passes   int
	rows     []bench.Row
	vs       string // NAME=PATH, self, or empty
	crowd    int    // peers of a crowd to measure instead, or 0
	asJSON   bool
}

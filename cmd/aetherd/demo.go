package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// Bounds of demo --seconds; the longer, the steadier the numbers.
const (
	demoSeconds    = 3.0
	maxDemoSeconds = 5.0
	minSeconds     = 0.1
)

func newDemo() *cobra.Command {
	c := &cobra.Command{
		Use: "demo", Short: "Show it all working on this machine", GroupID: "try", Args: cobra.NoArgs,
		Long: `Build a laptop, a gateway and a LAN behind it as three network namespaces on this machine, start two
real aetherd processes with TUN devices of their own, and measure what passes between: ping, a web page, TCP
both ways, round trips idle and under load. It takes less than 40 seconds, touches nothing of the
machine's own network and leaves nothing behind. The exit code is 0 only if all of it worked.

It works as root, and without where the system lets its users have user namespaces and /dev/net/tun.`,
		Example: `  aetherd demo
  aetherd demo --seconds 1
  aetherd demo --json | jq '.checks[] | select(.kind == "throughput")'`,
	}
	asJSON := jsonFlag(c)
	seconds := c.Flags().Float64("seconds", demoSeconds, "how long each measurement takes")
	c.RunE = func(c *cobra.Command, _ []string) error {
		// Written so that not-a-number is refused too.
		if !(*seconds >= minSeconds && *seconds <= maxDemoSeconds) {
			return fmt.Errorf("--seconds %v: want %v to %v", *seconds, minSeconds, maxDemoSeconds)
		}
		return runDemo(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), demoOptions{
			duration: time.Duration(*seconds * float64(time.Second)), asJSON: *asJSON,
		})
	}
	return c
}

// demoOptions is what the flags of demo say.
type demoOptions struct {
	duration time.Duration // of each measurement
	asJSON   bool
}

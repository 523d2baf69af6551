package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/aethertunnel/aethertunnel/cmd/internal/daemon"
	"github.com/aethertunnel/aethertunnel/control/api"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

func newStatus() *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "Show what the daemon is doing", GroupID: "run", Args: cobra.NoArgs,
		Example: `  aetherd status
  aetherd status --json | jq .peers`,
	}
	state, asJSON := stateFlag(c), jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		s, err := client(state).Status(c.Context())
		if errors.Is(err, api.ErrNotRunning) && busy(*state) {
			return errors.New(notReadyYet(*state) + ": ask again in a moment")
		}
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), s)
		}
		return printStatus(c.OutOrStdout(), s)
	}
	return c
}

// notReadyYet is the line about a daemon that has the state and cannot be asked.
func notReadyYet(state string) string {
	return "aetherd is starting (or ending) with state " + state
}

// busy reports whether a daemon that cannot be asked has the state.
func busy(state string) bool {
	held, err := daemon.Busy(state)
	return err == nil && held // of what we may not look at we know nothing
}

func printStatus(w io.Writer, s api.Status) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row := func(name string, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("node", "%s (%s), %s for %s", s.Name, s.Role, s.State, time.Since(s.Started).Round(time.Second))
	row("network", "%s  %s", s.Network, join(s.Prefixes))
	row("device", "%s, mtu %d, %s", s.Device.Name, s.Device.MTU, offloads(s.Device))
	row("addresses", "%s", join(s.Addresses))
	if len(s.Routes) > 0 {
		row("routes", "%s", join(s.Routes))
	}
	if len(s.Granted) > 0 {
		row("LAN behind us", "%s", join(s.Granted))
	}
	if len(s.Listen) > 0 {
		row("listening", "%s", strings.Join(s.Listen, " "))
		row("reachable at", "%s", strings.Join(s.Advertise, " "))
	}
	for _, p := range s.Peers {
		row("peer "+p.Name, "%s", describePeer(p))
	}
	for _, socket := range s.Sockets {
		if missing := describeFallbacks(socket.Offloads); missing != "" {
			row("socket "+socket.Address, "%s", missing)
		}
	}
	if drops := describeDrops(s.Drops); drops != "" {
		row("dropped", "%s", drops)
	}
	for _, n := range s.Notices {
		row("notice", "%s", n)
	}
	return t.Flush()
}

func describePeer(p api.Peer) string {
	if !p.Connected {
		return "not connected"
	}
	path := p.Path
	if p.Cipher != "" {
		path += " " + p.Cipher
	}
	parts := []string{p.Remote, p.KeyExchange, path, fmt.Sprintf("rtt %.2f ms", float64(p.RTTMicros)/1000)}
	if p.Since != nil {
		parts = append(parts, "up "+time.Since(*p.Since).Round(time.Second).String())
	}
	parts = append(parts, fmt.Sprintf("in %s out %s", bytesText(p.ReceivedBytes), bytesText(p.SentBytes)))
	if p.Authentication != "" {
		parts = append(parts, p.Authentication)
	}
	if p.InFragments {
		parts = append(parts, "session in fragments: path MTU below 1228")
	}
	return strings.Join(parts, ", ")
}

// describeFallbacks says which fast paths a socket goes without, and why.
func describeFallbacks(o udp.Offloads) string {
	var parts []string
	for _, path := range []struct {
		name string
		o    udp.Offload
	}{{"segmentation", o.Segmentation}, {"coalescing", o.Coalescing}, {"batches", o.Batch}, {"fragments", o.Fragments}} {
		if !path.o.On {
			parts = append(parts, "no "+path.name+": "+path.o.Reason)
		}
	}
	return strings.Join(parts, ", ")
}

func describeDrops(drops map[string]uint64) string {
	var parts []string
	for _, reason := range sortedKeys(drops) {
		if n := drops[reason]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", reason, n))
		}
	}
	return strings.Join(parts, ", ")
}

func offloads(d api.Device) string {
	switch o := d.Offloads; {
	case o.UDP:
		return "TCP and UDP offload"
	case o.TCP:
		return "TCP offload"
	}
	return "no offload"
}

// bytesText writes a size with a unit of 1,000s.
func bytesText(n uint64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	f := float64(n)
	for _, unit := range units[:len(units)-1] {
		if f < 1000 {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + " " + unit
		}
		f /= 1000
	}
	return fmt.Sprintf("%.1f %s", f, units[len(units)-1])
}

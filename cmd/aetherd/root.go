package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/aethertunnel/aethertunnel/control/api"
	"github.com/aethertunnel/aethertunnel/control/config"
)

// newRoot builds the whole command tree.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "aetherd",
		Short: "A VPN with a virtual NIC: IP packets in QUIC datagrams, post-quantum keys",
		Long: `aetherd joins machines into one private network. Each gets a virtual network
interface; IP packets of any program cross between them, IPv4 and IPv6, inside an
ordinary looking HTTP/3 connection with hybrid post-quantum keys.

On the machine the others shall connect to:

    sudo aetherd up

It prints a line that starts with aether://. On the other machine:

    sudo aetherd up 'aether://…'`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "network", Title: "Look after the network:"},
		&cobra.Group{ID: "try", Title: "Try and measure:"},
	)
	root.AddCommand(
		newUp(), newDown(), newStatus(),
		newInvite(), newNodes(), newRoutes(),
		newDemo(), newBench(),
		newConfig(), newVersion(),
	)
	root.CompletionOptions.HiddenDefaultCmd = true
	return root
}

// stateFlag adds --state, by which a verb finds its daemon.
func stateFlag(c *cobra.Command) *string {
	state := c.Flags().String("state", config.DefaultStateDir(), "state directory of the daemon to talk to")
	_ = c.MarkFlagDirname("state") // fails only for flags that do not exist
	return state
}

// jsonFlag adds --json.
func jsonFlag(c *cobra.Command) *bool {
	return c.Flags().Bool("json", false, "print JSON, for scripts")
}

func client(state *string) *api.Client { return api.NewClient(*state) }

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// isTerminal reports whether w is a terminal that a person looks at.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  aetherd version",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), "aetherd", version)
			return err
		},
	}
}

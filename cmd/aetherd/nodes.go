package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/aethertunnel/aethertunnel/control/api"
)

func newNodes() *cobra.Command {
	c := &cobra.Command{
		Use:     "nodes",
		Short:   "List the nodes of the network, or cut one off",
		GroupID: "network",
		Example: `  aetherd nodes
  aetherd nodes list --json
  aetherd nodes revoke laptop`,
	}
	list := newNodesList()
	c.AddCommand(list, newNodesRevoke())
	c.Flags().AddFlagSet(list.Flags())
	c.Args = cobra.NoArgs
	c.RunE = list.RunE
	return c
}

func newNodesList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List the nodes of the network", Args: cobra.NoArgs,
		Example: "  aetherd nodes list --json",
	}
	state, asJSON := stateFlag(c), jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		nodes, err := client(state).Nodes(c.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), nodes)
		}
		return printNodes(c.OutOrStdout(), nodes)
	}
	return c
}

func printNodes(w io.Writer, nodes []api.Node) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tADDRESSES\tROLE\tLAST SEEN\tID")
	for _, n := range nodes {
		state, seen, role := "offline", "never", n.Role
		switch {
		case n.Revoked:
			state = "revoked"
		case n.Connected:
			state = "connected"
		}
		if n.LastSeen != nil {
			seen = n.LastSeen.Local().Format(time.DateTime)
		}
		if n.Connected {
			seen = "now"
		}
		if n.Stock {
			role = "stock client"
		}
		var addresses []string
		for _, a := range n.Addresses {
			addresses = append(addresses, a.String())
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.8s\n", n.Name, state, strings.Join(addresses, " "), role, seen, n.NodeID)
	}
	return t.Flush()
}

func newNodesRevoke() *cobra.Command {
	c := &cobra.Command{
		Use: "revoke NAME", Short: "Cut a node off for good", Args: cobra.ExactArgs(1),
		Long:    "Cut a node off: its session ends within a second and its keys are not admitted again.",
		Example: "  aetherd nodes revoke laptop",
	}
	state := stateFlag(c)
	c.ValidArgsFunction = func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		nodes, err := client(state).Nodes(c.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, n := range nodes {
			if !n.Revoked {
				names = append(names, n.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := client(state).Revoke(c.Context(), args[0]); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "%s is cut off\n", args[0])
		return err
	}
	return c
}

func newRoutes() *cobra.Command {
	c := &cobra.Command{
		Use:     "routes",
		Short:   "List the subnets that nodes offer, or approve one",
		GroupID: "network",
		Example: `  aetherd routes
  aetherd routes approve office 192.168.7.0/24`,
	}
	list := newRoutesList()
	c.AddCommand(list, newRoutesApprove())
	c.Flags().AddFlagSet(list.Flags())
	c.Args = cobra.NoArgs
	c.RunE = list.RunE
	return c
}

func newRoutesList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List the subnets that nodes offer", Args: cobra.NoArgs,
		Example: "  aetherd routes list --json",
	}
	state, asJSON := stateFlag(c), jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		routes, err := client(state).Routes(c.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), routes)
		}
		t := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "NODE\tPREFIX\tSTATE")
		for _, r := range routes {
			state := "waits for approval"
			switch {
			case r.Active:
				state = "active"
			case r.Approved:
				state = "approved, not offered now"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", r.Node, r.Prefix, state)
		}
		return t.Flush()
	}
	return c
}

func newRoutesApprove() *cobra.Command {
	c := &cobra.Command{
		Use: "approve NODE PREFIX", Short: "Let everyone reach a subnet that a node offers", Args: cobra.ExactArgs(2),
		Example: "  aetherd routes approve office 192.168.7.0/24",
	}
	state := stateFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		prefix, err := netip.ParsePrefix(args[1])
		if err != nil {
			return fmt.Errorf("%s: not a prefix such as 192.168.7.0/24", args[1])
		}
		if err := client(state).Approve(c.Context(), args[0], prefix); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s through %s is approved\n", prefix, args[0])
		return err
	}
	return c
}

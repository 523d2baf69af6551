package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aethertunnel/aethertunnel/control/api"
)

func newInvite() *cobra.Command {
	c := &cobra.Command{
		Use:     "invite",
		Short:   "Make a line that lets another machine join",
		GroupID: "network",
		Long: `Make an invite: a line that lets another machine join this gateway's network. It holds a secret, so
hand it over as you would a password. On a terminal it comes with a QR code; otherwise the bare line is printed.`,
		Example: `  aetherd invite
  aetherd invite --uses 5 --ttl 1h
  aetherd invite --routes 192.168.7.0/24      # whoever joins may offer that LAN at once
  aetherd invite --stock --json               # for a CONNECT-IP client of another make
  ssh laptop sudo aetherd up "'$(aetherd invite)'" --detach`,
		Args: cobra.NoArgs,
	}
	state, asJSON := stateFlag(c), jsonFlag(c)
	uses := c.Flags().Int("uses", 1, "how many machines may join by it")
	ttl := c.Flags().Duration("ttl", 24*time.Hour, "how long it is good for")
	routes := c.Flags().StringSlice("routes", nil,
		"subnets `PREFIX[,PREFIX]` that the joining machine may offer without further approval")
	stock := c.Flags().Bool("stock", false, "for a standard CONNECT-IP client (RFC 9484) instead of aetherd")
	c.RunE = func(c *cobra.Command, _ []string) error {
		prefixes, err := parsePrefixes("--routes", *routes)
		if err != nil {
			return err
		}
		if *uses < 1 {
			return fmt.Errorf("--uses %d: an invite needs at least one use", *uses)
		}
		if *ttl < time.Minute {
			return fmt.Errorf("--ttl %s: an invite must be good for at least a minute", *ttl)
		}
		invite, err := client(state).Invite(c.Context(), api.InviteRequest{
			Uses: *uses, TTLSeconds: int64(ttl.Seconds()), Routes: prefixes, Stock: *stock,
		})
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), invite)
		}
		return printInvite(c.OutOrStdout(), invite)
	}
	return c
}

// printInvite shows an invite: to a script the bare line, to a person what to do with it.
func printInvite(w io.Writer, i api.Invite) error {
	if i.Line == "" {
		_, err := fmt.Fprintf(w, "URL            %s\nAuthorization  %s\nexpires        %s\n\n%s",
			i.URL, i.Authorization, i.Expires.Local().Format(time.RFC1123), i.CACertificate)
		return err
	}
	if !isTerminal(w) {
		_, err := fmt.Fprintln(w, i.Line)
		return err
	}
	return describeInvite(w, i, true)
}

// describeInvite is the long form, with a QR code where a person looks at it.
func describeInvite(w io.Writer, i api.Invite, withQR bool) error {
	times := "once"
	if i.Uses > 1 {
		times = fmt.Sprintf("%d times", i.Uses)
	}
	if _, err := fmt.Fprintf(w, "To join, type on the other machine (good %s, until %s):\n\n  sudo aetherd up '%s'\n\n",
		times, i.Expires.Local().Format("Mon 15:04"), i.Line); err != nil {
		return err
	}
	if !withQR {
		return nil
	}
	return writeQR(w, i.Line)
}

// parsePrefixes reads the prefixes of a list flag and names the flag in errors.
func parsePrefixes(flag string, texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%s %s: not a prefix such as 192.168.7.0/24 or fd00:7::/64", flag, text)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%s %s: bits are set behind the prefix length; did you mean %s?", flag, text, p.Masked())
		}
		out = append(out, p)
	}
	return out, nil
}

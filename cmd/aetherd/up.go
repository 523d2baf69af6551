package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"

	"github.com/aethertunnel/aethertunnel/cmd/internal/daemon"
	"github.com/aethertunnel/aethertunnel/control/config"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

// defaultConfig is the configuration file that is read when none is named.
const defaultConfig = "/etc/aetherd/aetherd.toml"

func newUp() *cobra.Command {
	c := &cobra.Command{
		Use: "up [INVITE|-]", Short: "Start a gateway, join a network, or reconnect", GroupID: "run",
		Long: `Without an argument, on a machine that has joined nothing, up makes a network and becomes
its gateway: it prints a line for the other machines. With such a line (or with - and the line on
standard input) it joins. After that, up alone reconnects.

It stays in the foreground and shows what happens; Ctrl-C ends it and leaves the machine as it
was. With --detach it returns as soon as packets pass, and keeps running.`,
		Example: `  sudo aetherd up                                   # become a gateway
  sudo aetherd up 'aether://203.0.113.7:443/AbC…'   # join
  sudo aetherd up - < invite.txt                    # the same, and no secret in the process list
  sudo aetherd up --detach                          # reconnect in the background
  sudo aetherd up --advertise vpn.example.org:443 --advertise-routes 192.168.7.0/24`,
		Args: cobra.MaximumNArgs(1),
	}
	var flags config.Flags
	for _, k := range config.Keys() {
		if k.Flag != "" {
			c.Flags().Var(flags.Value(k.Flag), k.Flag, k.Doc)
		}
	}
	file := c.Flags().String("config", defaultConfig, "configuration `FILE`")
	detach := c.Flags().Bool("detach", false, "return once packets pass and keep running in the background")
	ready := c.Flags().Bool("report-ready", false, "")
	_ = c.Flags().MarkHidden("report-ready") // fails only for flags that do not exist
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := config.Resolve(*file, c.Flags().Changed("config"), flags)
		if err != nil {
			return err
		}
		invite, err := readInvite(c.Context(), c.InOrStdin(), args)
		if err != nil {
			return err
		}
		if *detach {
			given := flags.Args()
			if c.Flags().Changed("config") {
				given = append(given, "--config="+*file)
			}
			return detachUp(c.Context(), c.OutOrStdout(), given, cfg.Node.State, invite)
		}
		return up(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), cfg, invite, *ready)
	}
	return c
}

// up runs the daemon in this process.
func up(ctx context.Context, out, errOut io.Writer, cfg config.Config, invite string, reportReady bool) error {
	lines := newStatusLines(out)
	defer lines.close()
	options := daemon.Options{
		Config: cfg, Invite: invite, Version: version, Log: newLog(errOut, cfg.Log), Observe: lines.event,
	}
	if !reportReady {
		options.Up = lines.up(out)
		return daemon.Run(ctx, options)
	}
	// Our output is a log that others may read, so what was set up, an invite among it, goes to the one who waits.
	report := newReadyReport()
	var shown strings.Builder
	options.Up = func(u daemon.Up) {
		describeAll(&shown, u, false)
		for _, n := range u.Status.Notices { // in the foreground they are lines of their own
			fmt.Fprintf(&shown, "notice: %s\n\n", n)
		}
	}
	options.Ready = func() { report(readyWord + shown.String()) }
	err := daemon.Run(ctx, options)
	if err != nil {
		report(err.Error())
	}
	return err
}

// readInvite takes the invite from the argument, or from standard input for "-", which keeps it out of the process list.
func readInvite(ctx context.Context, in io.Reader, args []string) (string, error) {
	if len(args) == 0 {
		return "", nil
	}
	if args[0] != "-" {
		return args[0], nil
	}
	type answer struct {
		line string
		err  error
	}
	read := make(chan answer, 1)
	go func() { // a terminal's read ends no other way than with a line
		line, err := bufio.NewReader(io.LimitReader(in, 4*token.MaxInvite)).ReadString('\n')
		read <- answer{line, err}
	}()
	select {
	case a := <-read:
		if a.err != nil && !errors.Is(a.err, io.EOF) {
			return "", fmt.Errorf("read invite from standard input: %w", a.err)
		}
		if strings.TrimSpace(a.line) == "" {
			return "", errors.New("no invite on standard input: expected a line that starts with aether://")
		}
		return a.line, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// newLog makes the logger that the configuration asks for.
func newLog(w io.Writer, c config.Log) *slog.Logger {
	format := c.Format
	if format == config.FormatJSON {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: c.Level.Slog()}))
	}
	plain := format == config.FormatText || !isTerminal(w)
	return slog.New(tint.NewTextHandler(w, &tint.Options{Level: c.Level.Slog(), NoColor: plain, TimeFormat: "15:04:05"}))
}

func newDown() *cobra.Command {
	c := &cobra.Command{
		Use: "down", Short: "Stop the daemon and leave the machine as it was", GroupID: "run", Args: cobra.NoArgs,
		Long: `Stop the daemon. If it was killed before, down takes back what it has left behind. What somebody
else has changed since is left alone and listed.`,
		Example: `  sudo aetherd down
  sudo aetherd down --state /var/lib/aetherd-test`,
	}
	state := stateFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return down(c.Context(), c.OutOrStdout(), newLog(c.ErrOrStderr(), config.Default().Log), *state)
	}
	return c
}

// newConfig groups what can be asked about the configuration.
func newConfig() *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "Check a configuration file, or print an example",
		Example: "  aetherd config check /etc/aetherd/aetherd.toml\n  aetherd config example > aetherd.toml",
	}
	check := &cobra.Command{
		Use: "check FILE", Short: "Say everything that is wrong with a configuration file", Args: cobra.ExactArgs(1),
		Example: "  aetherd config check /etc/aetherd/aetherd.toml",
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := config.Load(args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s is good\n", args[0])
			return err
		},
	}
	example := &cobra.Command{
		Use: "example", Short: "Print a configuration file with every key explained", Args: cobra.NoArgs,
		Example: "  aetherd config example > aetherd.toml",
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := io.WriteString(c.OutOrStdout(), config.Example())
			return err
		},
	}
	c.AddCommand(check, example)
	return c
}

// readyDescriptor is the pipe on which a detached daemon tells its parent how it went.
const readyDescriptor = 3

// readyWord begins the report of a detached daemon through which packets pass; the rest is for the user. Any other
// report is the reason why it ended.
const readyWord = "ready\n"

// newReadyReport returns a function that tells the waiting parent, once.
func newReadyReport() func(string) {
	pipe := os.NewFile(readyDescriptor, "ready")
	var once sync.Once
	return func(text string) {
		once.Do(func() {
			// The parent may have given up waiting; the log has the events.
			_, _ = io.WriteString(pipe, text)
			_ = pipe.Close()
		})
	}
}

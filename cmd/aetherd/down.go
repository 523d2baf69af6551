package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/daemon"
	"github.com/aethertunnel/aethertunnel/control/api"
)

const (
	// stopLimit is how long down waits for the daemon to end.
	stopLimit = 15 * time.Second
	// stopPoll is how often it looks.
	stopPoll = 50 * time.Millisecond
)

// down stops the running daemon, or undoes what a killed one has left.
func down(ctx context.Context, out io.Writer, log *slog.Logger, state string) error {
	err := api.NewClient(state).Down(ctx)
	running := err == nil
	if err != nil && !errors.Is(err, api.ErrNotRunning) {
		return err
	}
	cleaned, err := waitClean(ctx, log, state)
	if err != nil {
		return err
	}
	switch {
	case running:
		_, err = fmt.Fprintln(out, "stopped; the machine is as it was")
	case cleaned.Undone > 0:
		_, err = fmt.Fprintf(out, "not running; took back %d changes that it had left\n", cleaned.Undone)
	default:
		_, err = fmt.Fprintln(out, "not running; nothing to take back")
	}
	for _, line := range cleaned.Kept {
		fmt.Fprintln(out, line)
	}
	return err
}

// waitClean waits until the daemon has let go of its state and undoes whatever is left.
func waitClean(ctx context.Context, log *slog.Logger, state string) (daemon.Cleaned, error) {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	tick := time.NewTicker(stopPoll)
	defer tick.Stop()
	for {
		cleaned, err := daemon.Clean(state, log)
		if !errors.Is(err, daemon.ErrAlreadyRunning) {
			return cleaned, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return daemon.Cleaned{}, fmt.Errorf("the daemon of %s has not stopped within %s", state, stopLimit)
		}
	}
}

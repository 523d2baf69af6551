package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/daemon"
	"github.com/aethertunnel/aethertunnel/control/api"
)

const (
	// stopLimit is how long down waits for the daemon to end, longer than a start may wait for a silent gateway.
	stopLimit = 25 * time.Second
	// stopPoll is how often it looks.
	stopPoll = 50 * time.Millisecond
)

// down stops the running daemon, or undoes what a killed one has left.
func down(ctx context.Context, out io.Writer, log *slog.Logger, state string) error {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	running, err := stop(ctx, out, state)
	if errors.Is(err, context.DeadlineExceeded) {
		return notStopped(state)
	}
	if err != nil {
		return err
	}
	cleaned, err := waitClean(ctx, log, state)
	if running && errors.Is(err, fs.ErrPermission) {
		// Those of the group may stop the daemon, but its state is root's.
		_, err = fmt.Fprintf(out, "stopped; `sudo aetherd down --state %s` says whether anything is left\n", state)
		return err
	}
	if err != nil {
		return err
	}
	return describeCleaned(out, cleaned, running)
}

// stop ends the daemon, if one is running. One that is starting cannot be asked yet: it is waited for.
func stop(ctx context.Context, out io.Writer, state string) (running bool, err error) {
	tick := time.NewTicker(stopPoll)
	defer tick.Stop()
	for told := false; ; told = true {
		err := api.NewClient(state).Stop(ctx)
		if !errors.Is(err, api.ErrNotRunning) {
			return err == nil, err
		}
		if !busy(state) {
			return false, nil
		}
		if !told {
			if _, err := fmt.Fprintf(out, "%s; it is stopped as soon as it can be asked\n", notReadyYet(state)); err != nil {
				return false, err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

func describeCleaned(out io.Writer, cleaned daemon.Cleaned, running bool) error {
	var b strings.Builder
	switch {
	case running && len(cleaned.Kept) == 0:
		fmt.Fprintln(&b, "stopped; the machine is as it was")
	case running:
		fmt.Fprintln(&b, "stopped; the machine is as it was, except for what somebody else has changed since:")
	case cleaned.Undone > 0:
		fmt.Fprintf(&b, "not running; took back %d changes that it had left\n", cleaned.Undone)
	default:
		fmt.Fprintln(&b, "not running; nothing to take back")
	}
	for _, line := range cleaned.Kept {
		fmt.Fprintln(&b, line)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// waitClean waits until the daemon has let go of its state and undoes whatever is left.
func waitClean(ctx context.Context, log *slog.Logger, state string) (daemon.Cleaned, error) {
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
			return daemon.Cleaned{}, notStopped(state)
		}
	}
}

func notStopped(state string) error {
	return fmt.Errorf("the daemon of %s has not stopped within %s", state, stopLimit)
}

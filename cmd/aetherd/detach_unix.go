//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/daemon"
	"github.com/aethertunnel/aethertunnel/control/api"
)

// detachLimit is how long --detach waits for packets to pass.
const detachLimit = 30 * time.Second

// maxReportBytes bounds the line in which the background process says why it failed.
const maxReportBytes = 64 << 10

// detachUp starts this program again, as `up` with the given flags, in a session of its own and returns when that reports
// that packets pass.
func detachUp(ctx context.Context, out io.Writer, flags []string, state, invite string) error {
	// Before anything is made: the directory and the log are for daemons that can start.
	if err := daemon.Precheck(state, invite); err != nil {
		return err
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	logPath := filepath.Join(state, "aetherd.log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close() //nolint:errcheck // the child writes it, we do not
	report, reportWrite, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	defer report.Close() //nolint:errcheck // read to its end, or given up
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	child := exec.Command(self, backgroundArgs(flags, invite != "")...)
	child.Stdin = strings.NewReader(invite)
	child.Stdout, child.Stderr = log, log
	child.ExtraFiles = []*os.File{reportWrite}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return errors.Join(fmt.Errorf("start in the background: %w", err), reportWrite.Close())
	}
	if err := reportWrite.Close(); err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	shown, err := awaitReport(ctx, report, child, state)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%saetherd runs in the background (pid %d); log in %s; stop it with `aetherd down --state %s`\n",
		shown, child.Process.Pid, logPath, state)
	return errors.Join(err, child.Process.Release())
}

// awaitReport waits for the child's word and ends the child if it does not come in time. It returns what the child
// has for the user.
func awaitReport(ctx context.Context, report *os.File, child *exec.Cmd, state string) (string, error) {
	if err := report.SetReadDeadline(time.Now().Add(detachLimit)); err != nil {
		return "", fmt.Errorf("wait for the daemon: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = report.SetReadDeadline(time.Now()) }) // fails only when closed
	defer stop()
	text, err := io.ReadAll(io.LimitReader(report, maxReportBytes))
	shown, ready := strings.CutPrefix(string(text), readyWord)
	switch {
	case err == nil && ready:
		return shown, nil
	case err == nil && len(text) > 0:
		_ = child.Wait() // it has said why it ended
		return "", errors.New(string(text))
	case err == nil:
		return "", fmt.Errorf("the daemon ended without a word: %w", child.Wait())
	}
	// Undoing its changes is the child's own business, so it is asked to end, not killed.
	reason := notReady(context.WithoutCancel(ctx), state)
	if ctx.Err() != nil {
		reason = context.Cause(ctx)
	}
	return "", errors.Join(reason, child.Process.Signal(syscall.SIGTERM), ignoreExit(child.Wait()))
}

// notReady says why no packets pass, in the daemon's own words where it has any.
func notReady(ctx context.Context, state string) error {
	const line = "no packets pass within %s: %s"
	status, err := api.NewClient(state).Status(ctx)
	switch {
	case err != nil:
		return fmt.Errorf(line, detachLimit, err)
	case len(status.Notices) > 0:
		return fmt.Errorf(line, detachLimit, strings.Join(status.Notices, "; "))
	}
	return fmt.Errorf(line, detachLimit, "the gateway does not answer")
}

// ignoreExit drops the exit code of a child that was asked to end.
func ignoreExit(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil
	}
	return err
}

// backgroundArgs are the arguments of the child: the same flags, in the foreground, with the invite on standard input.
func backgroundArgs(flags []string, invited bool) []string {
	out := slices.Concat([]string{"up"}, flags, []string{"--report-ready"})
	if invited {
		out = append(out, "-")
	}
	return out
}

package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/control/api"
)

// maxReportBytes bounds what a daemon says of its start.
const maxReportBytes = 64 << 10

// A Launch says how to start one aetherd.
type Launch struct {
	Namespace *lab.Namespace // where it runs; the name of it is the node's too
	Args      []string       // what follows `aetherd up`
	Invite    string         // handed over on standard input unless empty
}

// An Aetherd is a running `aetherd up`, a process of this same program.
type Aetherd struct {
	*api.Client

	name   string
	cmd    *lab.Cmd
	tail   Tail
	report *os.File // where it says how its start went

	ended chan struct{} // closed when the process has ended
	err   error         // how, once ended is closed
}

// Start starts an aetherd in the foreground with a fresh state directory of its own. It must be stopped.
func Start(l Launch) (*Aetherd, error) {
	a := &Aetherd{name: l.Namespace.Name(), ended: make(chan struct{})}
	if err := a.start(l); err != nil {
		return nil, fmt.Errorf("%s: start aetherd: %w", a.name, err)
	}
	return a, nil
}

func (a *Aetherd) start(l Launch) error {
	state := filepath.Join(runDir, "aetherd-"+a.name)
	if err := os.Mkdir(state, 0o700); err != nil {
		return err
	}
	a.Client = api.NewClient(state)
	// The configuration of the machine's own daemon is no business of this one.
	config := filepath.Join(state, "aetherd.toml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return err
	}
	args := []string{"up", "--report-ready", "--state", state, "--config", config, "--name", a.name}
	args = append(args, l.Args...)
	if l.Invite != "" {
		args = append(args, "-")
	}
	a.cmd = l.Namespace.Command(context.Background(), Self, args...)
	a.cmd.Args[0] = "aetherd"
	a.cmd.Stdin = strings.NewReader(l.Invite)
	a.cmd.Stdout, a.cmd.Stderr = &a.tail, &a.tail
	// A Ctrl-C is for us alone: it is we who end the daemons, in order.
	a.cmd.SysProcAttr.Setpgid = true
	return a.launch()
}

// launch starts the process and a goroutine that waits for its end.
func (a *Aetherd) launch() error {
	report, write, err := os.Pipe()
	if err != nil {
		return err
	}
	a.report = report
	a.cmd.ExtraFiles = []*os.File{write}
	err = errors.Join(a.cmd.Start(), write.Close())
	if err != nil {
		return errors.Join(err, report.Close())
	}
	go func() {
		defer close(a.ended)
		a.err = a.cmd.Wait()
	}()
	return nil
}

// PID returns the number of the process.
func (a *Aetherd) PID() int { return a.cmd.Process.Pid }

// Watch calls cancel when the process has ended, for whoever cannot go on without it.
func (a *Aetherd) Watch(cancel context.CancelCauseFunc) {
	go func() {
		<-a.ended
		cancel(fmt.Errorf("%s: its daemon has ended by itself", a.name))
	}()
}

// AwaitReady waits until a gateway listens or packets pass through a member's tunnel; if the daemon gives up, the error
// is its own.
func (a *Aetherd) AwaitReady(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = a.report.SetReadDeadline(time.Now()) }) // fails only when closed
	defer stop()
	line, err := io.ReadAll(io.LimitReader(a.report, maxReportBytes))
	switch {
	case err == nil && strings.HasPrefix(string(line), "ready\n"):
		return nil
	case err == nil && len(line) > 0:
		return fmt.Errorf("%s: %s", a.name, line)
	case err == nil:
		<-a.ended
		return fmt.Errorf("%s: its daemon ended without a word: %w", a.name, a.err)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: its daemon is not ready: %w", a.name, context.Cause(ctx))
	}
	return fmt.Errorf("%s: wait for its daemon: %w", a.name, err)
}

// Stop asks the process to end, which takes back what it has changed, and kills it if it does not in time. The error
// says that it did not end well.
func (a *Aetherd) Stop() error {
	err := a.cmd.Process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	timer := time.NewTimer(stopLimit / 2)
	defer timer.Stop()
	select {
	case <-a.ended:
	case <-timer.C:
		err = errors.Join(errors.New("did not end when asked to"), err, a.cmd.Process.Kill())
		<-a.ended
	}
	if err = errors.Join(err, a.err, a.report.Close()); err != nil {
		return fmt.Errorf("%s: stop its daemon: %w", a.name, err)
	}
	return nil
}

// StopAll stops all of them at the same time. Those that are nil were never started.
func StopAll(daemons ...*Aetherd) error {
	errs := make(chan error, len(daemons))
	running := started(daemons)
	for _, a := range running {
		go func() { errs <- a.Stop() }()
	}
	var all []error
	for range running {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func started(daemons []*Aetherd) []*Aetherd {
	return slices.DeleteFunc(slices.Clone(daemons), func(a *Aetherd) bool { return a == nil })
}

// ErrInterrupted is what [Verdict] makes of an error that comes from the user's wish to stop.
var ErrInterrupted = errors.New("interrupted")

// logLines is how much of each daemon's log an error quotes.
const logLines = 12

// Verdict joins what went wrong on stage and what went wrong when it was cleared, either of which may be nil, and adds
// the last lines that the daemons wrote, without secrets. Daemons that are nil were never started.
func Verdict(played, cleared error, daemons ...*Aetherd) error {
	if errors.Is(played, context.Canceled) {
		played = ErrInterrupted
		if cleared == nil {
			return played
		}
	}
	err := errors.Join(played, cleared)
	if err == nil {
		return nil
	}
	var b strings.Builder
	for _, a := range started(daemons) {
		lines := strings.Join(a.tail.Lines(logLines), "\n  ")
		fmt.Fprintf(&b, "\n\nthe last lines of the daemon on %s:\n  %s", a.name, lines)
	}
	return fmt.Errorf("%w%s", err, b.String())
}

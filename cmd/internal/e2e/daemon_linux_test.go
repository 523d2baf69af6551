package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/control/api"
)

// A daemon is a running `aetherd up` and its state directory.
type daemon struct {
	t       *testing.T
	machine *machine
	state   string
	api     *api.Client
	cmd     *lab.Cmd
	output  *output
	ended   chan struct{} // closed when the process has ended; then code is valid
	code    int
}

// up starts a daemon whose state directory has the given name. When the test ends, it is stopped as a person
// would stop it, and the test fails if it does not end well by that.
func (m *machine) up(state string, args ...string) *daemon {
	m.t.Helper()
	d := m.start(state, args...)
	m.t.Cleanup(func() {
		if !d.running() {
			return
		}
		if m.t.Failed() {
			d.logCounters()
		}
		d.signal(syscall.SIGTERM)
		if code := d.wait(); code != 0 {
			m.t.Errorf("%s ended with code %d after SIGTERM", d, code)
		}
	})
	return d
}

// start is up for a daemon that the test itself brings to its end.
func (m *machine) start(state string, args ...string) *daemon {
	m.t.Helper()
	m.watched()
	d := &daemon{t: m.t, machine: m, state: m.state(state), output: newOutput(), ended: make(chan struct{})}
	d.api = api.NewClient(d.state)
	args = append([]string{"up", "--state", d.state}, args...)
	d.cmd = m.Command(context.WithoutCancel(m.t.Context()), m.program, args...)
	d.cmd.Env = append(os.Environ(), m.env...)
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	d.cmd.WaitDelay = 5 * time.Second
	if err := d.cmd.Start(); err != nil {
		m.t.Fatalf("start %s: %v", d, err)
	}
	go func() {
		err := d.cmd.Wait()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			fmt.Fprintln(d.output, "wait:", err)
		}
		d.code = d.cmd.ProcessState.ExitCode()
		fmt.Fprintln(d.output, "ended:", d.cmd.ProcessState)
		close(d.ended)
	}()
	m.t.Cleanup(func() {
		if d.running() {
			d.kill()
		}
		if m.t.Failed() {
			m.t.Logf("%s said:\n%s", d, d.output)
		}
	})
	return d
}

// logCounters helps to find out where packets have gone.
func (d *daemon) logCounters() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.t.Context()), time.Second)
	defer cancel()
	s, err := d.api.Status(ctx)
	if err != nil {
		d.t.Logf("%s: %v", d, err)
		return
	}
	d.t.Logf("%s drops %v", d, s.Drops)
	for _, p := range s.Peers {
		d.t.Logf("%s and %s: %+v", d, p.Name, p)
	}
}

// String names the daemon in messages.
func (d *daemon) String() string { return d.machine.Name() + ":" + d.state[len(d.machine.dir)+1:] }

func (d *daemon) running() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

func (d *daemon) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Fatalf("send %s to %s: %v", s, d, err)
	}
}

// wait waits for the daemon's end and returns its exit code.
func (d *daemon) wait() int {
	d.t.Helper()
	select {
	case <-d.ended:
		return d.code
	case <-time.After(patience):
		d.signal(syscall.SIGQUIT) // the runtime prints what all goroutines are doing
		<-d.ended
		d.t.Fatalf("%s did not end within %s", d, patience)
		return -1
	}
}

// kill ends the daemon as a crash would.
func (d *daemon) kill() {
	d.t.Helper()
	d.signal(syscall.SIGKILL)
	d.wait()
}

// stop ends the daemon in good order and checks that it does.
func (d *daemon) stop() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	if code := d.wait(); code != 0 {
		d.t.Fatalf("%s ended with code %d after SIGTERM", d, code)
	}
}

// refused waits until the daemon has ended and checks that it did so with a line that has all the given
// parts.
func (d *daemon) refused(parts ...string) {
	d.t.Helper()
	code := d.wait()
	lines := d.output.lines("aetherd: ")
	outcome{stderr: strings.Join(lines, "\n"), code: code}.refused(d.t, parts...)
}

// verb runs a command against this daemon and returns what it wrote.
func (d *daemon) verb(args ...string) string {
	d.t.Helper()
	return d.machine.must(append(args, "--state", d.state)...)
}

// status asks the daemon through its socket.
func (d *daemon) status() api.Status {
	d.t.Helper()
	s, err := d.api.Status(within(d.t, patience))
	if err != nil {
		d.t.Fatalf("%s: %v", d, err)
	}
	return s
}

// awaitStatus waits until the daemon's status is as wanted.
func (d *daemon) awaitStatus(what string, wanted func(api.Status) bool) api.Status {
	d.t.Helper()
	ctx := within(d.t, patience)
	var last api.Status
	for {
		s, err := d.api.Status(ctx)
		if err == nil {
			last = s
		}
		switch {
		case err == nil && wanted(s):
			return s
		case ctx.Err() != nil:
			text, _ := json.MarshalIndent(last, "", "  ") // it came as JSON
			d.t.Fatalf("%s: not %s within %s: %v\n%s", d, what, patience, err, text)
		case !d.running():
			d.t.Fatalf("%s has ended and is not %s", d, what)
		}
		pause(ctx, pollPeriod)
	}
}

// await waits until the daemon has said something, in a line of its output, since its start.
func (d *daemon) await(text string) {
	d.t.Helper()
	d.awaitTimes(text, 1)
}

// awaitTimes waits until the daemon has said something in at least that many lines.
func (d *daemon) awaitTimes(text string, times int) {
	d.t.Helper()
	ctx := within(d.t, patience)
	for {
		changed := d.output.watch()
		ended := !d.running()
		switch {
		case len(d.output.lines(text)) >= times:
			return
		case ended:
			d.t.Fatalf("%s has ended and has not said %q %d times", d, text, times)
		}
		select {
		case <-changed:
		case <-d.ended:
		case <-ctx.Done():
			d.t.Fatalf("%s has not said %q %d times within %s", d, text, times, patience)
		}
	}
}

// listening waits until a gateway takes sessions.
func (d *daemon) listening() *daemon {
	d.t.Helper()
	d.await("listening")
	d.awaitStatus("listening", func(s api.Status) bool { return s.State == "listening" })
	return d
}

// connected waits until packets pass through a member's tunnel.
func (d *daemon) connected() *daemon {
	d.t.Helper()
	d.await("packets pass")
	return d
}

// sessions counts the sessions that a gateway has taken.
func (d *daemon) sessions() int { return len(d.output.lines("  connected ")) }

// invite asks a gateway for an invite and returns its line.
func (d *daemon) invite(args ...string) string {
	d.t.Helper()
	return strings.TrimSpace(d.verb(append([]string{"invite"}, args...)...))
}

// address4 and address6 are the daemon's tunnel addresses.
func (d *daemon) address4() netip.Addr { return d.tunnelAddress(netip.Addr.Is4) }
func (d *daemon) address6() netip.Addr { return d.tunnelAddress(netip.Addr.Is6) }

func (d *daemon) tunnelAddress(family func(netip.Addr) bool) netip.Addr {
	d.t.Helper()
	for _, a := range d.status().Addresses {
		if family(a) {
			return a
		}
	}
	d.t.Fatalf("%s has no such tunnel address", d)
	return netip.Addr{}
}

// output keeps the lines of a process with their times.
type output struct {
	mu      sync.Mutex
	begin   time.Time
	whole   []string
	partial []byte
	changed chan struct{} // closed and replaced at each new line
}

func newOutput() *output { return &output{begin: time.Now(), changed: make(chan struct{})} }

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.partial = append(o.partial, p...)
	for {
		line, rest, found := bytes.Cut(o.partial, []byte{'\n'})
		if !found {
			return len(p), nil
		}
		o.whole = append(o.whole, string(line))
		o.partial = rest
		close(o.changed)
		o.changed = make(chan struct{})
	}
}

// watch returns a channel that is closed when something new is said.
func (o *output) watch() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// lines returns the lines that contain a text.
func (o *output) lines(text string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for _, line := range o.whole {
		if strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

// String is everything said so far.
func (o *output) String() string { return strings.Join(o.lines(""), "\n") }

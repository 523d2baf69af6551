package e2e

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/labtest"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

// patience is how long anything may take before a test gives up. Nothing is expected to take that long; the
// race detector on a busy machine may.
const patience = 40 * time.Second

// within returns a context for one wait of a test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// A machine is one computer of a test: a network namespace, and a directory for its files. From the first
// daemon on it must be left as it was: a test that changes it by itself takes that back in a cleanup.
type machine struct {
	*lab.Namespace
	t       *testing.T
	dir     string
	before  listing  // empty until a daemon starts
	program string   // the aetherd that runs here
	env     []string // added to the environment of that
}

// newMachine makes a machine without any network.
func newMachine(t *testing.T, name string) *machine {
	t.Helper()
	if reason := os.Getenv(skipVariable); reason != "" {
		t.Skip(reason)
	}
	m := &machine{
		Namespace: labtest.Namespace(t, name), t: t, dir: filepath.Join(t.TempDir(), name),
		program: os.Getenv(binaryVariable),
	}
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return m
}

// cable joins two machines; addresses are those of the first and the second end, such as "192.0.2.1/24".
func cable(a *machine, aName string, b *machine, bName string, aAddresses, bAddresses []string) {
	a.t.Helper()
	labtest.Veth(a.t, a.Interface(aName), b.Interface(bName), 1500)
	a.address(aName, aAddresses...)
	b.address(bName, bAddresses...)
}

// address gives an interface addresses.
func (m *machine) address(device string, prefixes ...string) {
	m.t.Helper()
	if err := m.Interface(device).AddAddress(prefixes...); err != nil {
		m.t.Fatal(err)
	}
}

// route sends a prefix to a next hop.
func (m *machine) route(prefix, via string) {
	m.t.Helper()
	if err := m.AddRoute(prefix, via); err != nil {
		m.t.Fatal(err)
	}
}

// sysctl sets a kernel parameter.
func (m *machine) sysctl(key, value string) {
	m.t.Helper()
	if err := m.Sysctl(key, value); err != nil {
		m.t.Fatal(err)
	}
}

// readSysctl reads a kernel parameter.
func (m *machine) readSysctl(key string) string {
	m.t.Helper()
	value, err := m.ReadSysctl(key)
	if err != nil {
		m.t.Fatal(err)
	}
	return value
}

// state names a state directory of this machine; it need not exist.
func (m *machine) state(name string) string { return filepath.Join(m.dir, name) }

// watched notes what the machine looks like before the first daemon, and compares at the end of the test.
func (m *machine) watched() {
	m.t.Helper()
	if m.before != nil {
		return
	}
	m.settled()
	m.before = m.list()
	m.t.Cleanup(func() { m.mustBeUntouched("at the end of the test") })
}

// mustBeUntouched fails the test unless the machine looks as it did before the first daemon. A daemon that has taken
// everything back, and has told so, may take a moment more to end.
func (m *machine) mustBeUntouched(when string) {
	m.t.Helper()
	if m.before == nil {
		m.t.Fatalf("%s: nothing has run here", m.Name())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.t.Context()), patience)
	defer cancel()
	now := m.list()
	for len(now.with("process ")) > 0 && ctx.Err() == nil {
		pause(ctx, pollPeriod)
		now = m.list()
	}
	if diff := m.before.diff(now); diff != "" {
		m.t.Errorf("%s is not as it was, %s:\n%s", m.Name(), when, diff)
	}
}

// An outcome is what a command that has ended said.
type outcome struct {
	stdout, stderr string
	code           int
}

// aetherd runs a command to its end.
func (m *machine) aetherd(args ...string) outcome {
	m.t.Helper()
	return m.aetherdWith(nil, args...)
}

// aetherdWith runs a command to its end that was changed before its start.
func (m *machine) aetherdWith(prepare func(*exec.Cmd), args ...string) outcome {
	m.t.Helper()
	m.watched()
	c := m.Command(within(m.t, patience), m.program, args...)
	c.Env = append(os.Environ(), m.env...)
	var stdout, stderr strings.Builder
	c.Stdout, c.Stderr = &stdout, &stderr
	if prepare != nil {
		prepare(c.Cmd)
	}
	err := c.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("%s: aetherd %s: %v", m.Name(), strings.Join(args, " "), err)
	}
	return outcome{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
}

// must runs a command that has to succeed and returns what it wrote.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	o := m.aetherd(args...)
	if o.code != 0 {
		m.t.Fatalf("%s: aetherd %s: exit %d\n%s%s", m.Name(), strings.Join(args, " "), o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// refused checks that a command fails with one line on standard error that has all the given parts.
func (o outcome) refused(t *testing.T, parts ...string) {
	t.Helper()
	switch lines := strings.Split(strings.TrimSuffix(o.stderr, "\n"), "\n"); {
	case o.code <= 0:
		t.Errorf("exit code %d, want a failure that says %q\n%s%s", o.code, parts, o.stdout, o.stderr)
	case len(lines) != 1 || !strings.HasPrefix(lines[0], "aetherd: "):
		t.Errorf("want one line about %q:\n%s", parts, o.stderr)
	default:
		for _, part := range parts {
			if !strings.Contains(lines[0], part) {
				t.Errorf("the line does not say %q: %s", part, lines[0])
			}
		}
		t.Log(lines[0])
	}
}

// reaches fails the test unless every address answers ping from the machine.
func (m *machine) reaches(addresses ...netip.Addr) {
	m.t.Helper()
	for _, a := range addresses {
		result, err := traffic.Ping{Count: 3, Timeout: 3 * time.Second}.Run(within(m.t, patience), m, a)
		if err != nil || result.Received != 3 {
			m.t.Errorf("%s pings %s: %d of %d answered, %v, %v",
				m.Name(), a, result.Received, result.Sent, result.Errors, err)
		}
	}
}

// eventuallyReaches waits until an address answers ping and returns how long that took.
func (m *machine) eventuallyReaches(a netip.Addr) time.Duration {
	m.t.Helper()
	begin, ctx := time.Now(), within(m.t, patience)
	for {
		result, err := traffic.Ping{Timeout: 200 * time.Millisecond}.Run(ctx, m, a)
		switch {
		case err == nil && result.Received == 1:
			return time.Since(begin)
		case ctx.Err() != nil:
			m.t.Fatalf("%s: no answer from %s within %s: %v, %v", m.Name(), a, patience, result.Errors, err)
		}
		pause(ctx, pollPeriod)
	}
}

// doesNotReach fails the test if an address answers one of a few pings.
func (m *machine) doesNotReach(addresses ...netip.Addr) {
	m.t.Helper()
	for _, a := range addresses {
		// An error that says that there is no way is as good as silence.
		result, err := traffic.Ping{Count: 2, Timeout: 300 * time.Millisecond}.Run(within(m.t, patience), m, a)
		if result.Received > 0 {
			m.t.Errorf("%s gets answers from %s, which it must not reach (%v)", m.Name(), a, err)
		}
	}
}

// pollPeriod is how often something that cannot be waited for is looked at.
const pollPeriod = 20 * time.Millisecond

// pause waits between two looks at something.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/api"
)

// clockVariable is how far the clock of a daemon built by withClock is ahead, such as "-2h".
const clockVariable = "AETHER_E2E_CLOCK"

// clockSource is the function that a build of withClock gets in addition.
const clockSource = `package daemon

import (
	"os"
	"time"
)

func clockAhead() time.Duration {
	ahead, err := time.ParseDuration(os.Getenv("` + clockVariable + `"))
	if err != nil {
		panic(err)
	}
	return ahead
}
`

// withClock builds an aetherd whose clock can be wrong. No namespace has a time of day of its own, and the
// product has no switch for it: the one function through which the daemon reads the clock is another one in
// this build.
func withClock(t *testing.T) (program string) {
	t.Helper()
	const (
		right = "func now() time.Time { return time.Now() }"
		wrong = "func now() time.Time { return time.Now().Add(clockAhead()) }"
	)
	sources, err := filepath.Glob("../daemon/*.go")
	if err != nil {
		t.Fatal(err)
	}
	dir, replaced := t.TempDir(), map[string]string{}
	overlay := func(path, name string, content []byte) {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		replaced[path] = filepath.Join(dir, name)
		if err := os.WriteFile(replaced[path], content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range sources {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(source, []byte(right)) {
			overlay(path, "now.go", bytes.Replace(source, []byte(right), []byte(wrong), 1))
		}
	}
	if len(replaced) != 1 {
		t.Fatalf("package daemon reads the clock in %d places of the form %q", len(replaced), right)
	}
	overlay("../daemon/clockahead.go", "ahead.go", []byte(clockSource))
	index, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, index, 0o600); err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(dir, "aetherd")
	if err := build(program, "-buildvcs=false", "-overlay", list); err != nil {
		t.Fatal(err)
	}
	return program
}

// setClock makes the clock wrong that the daemons of a machine see from now on.
func (m *machine) setClock(program string, ahead time.Duration) {
	m.program, m.env = program, []string{clockVariable + "=" + ahead.String()}
}

// What becomes of members whose clock is wrong.
func TestAWrongClock(t *testing.T) {
	t.Parallel()
	if reason := os.Getenv(skipVariable); reason != "" {
		t.Skip(reason)
	}
	program := withClock(t)
	t.Run("of a member", func(t *testing.T) { t.Parallel(); checkWrongClock(t, program) })
	t.Run("at an old gateway", func(t *testing.T) { t.Parallel(); checkOldGateway(t, program) })
}

// checkWrongClock: an invitee whose clock is wrong by more than the certificates allow for is told both
// times, and what to do, while nothing happens to its machine; with the right time the same command works. A
// member is told the same and goes on trying, as whatever sets the clock may need the network.
func checkWrongClock(t *testing.T, program string) {
	t.Helper()
	g, l := twoMachines(t)
	const slow, fast = -admit.Backdate - 30*time.Minute, 2 * admit.Validity
	gateway := gatewayUp(g)
	invite := gateway.invite()
	for _, ahead := range []time.Duration{slow, fast} {
		l.setClock(program, ahead)
		l.aetherd("up", "--state", l.state("laptop"), invite).refusesClock(t, ahead)
		l.mustBeUntouched("after joining with a wrong clock")
	}
	if n := len(nodes(gateway)); n != 1 {
		t.Errorf("the network has %d nodes, want the gateway alone", n)
	}
	// Less than that does no harm.
	l.setClock(program, -admit.Backdate/2)
	l.up("laptop", "--name", "laptop", invite).connected().stop()

	for _, ahead := range []time.Duration{slow, fast} {
		l.setClock(program, ahead)
		member := l.up("laptop")
		member.await("check the clock")
		tellsClock(t, member.output.lines("check the clock")[0], ahead)
		s := member.awaitStatus("telling the cause", func(s api.Status) bool {
			return strings.Contains(strings.Join(s.Notices, ""), "check the clock")
		})
		tellsClock(t, strings.Join(s.Notices, ""), ahead)
		member.stop()
		l.mustBeUntouched("after coming back with a wrong clock")
	}
	l.setClock(program, 0)
	l.up("laptop").connected()
	l.reaches(gateway.address4(), gateway.address6())
}

// checkOldGateway: where the gateway's own certificate is old, a slow clock shows only in the certificate
// that the invite has bought: the invite is still good for the same machine, with the right time.
func checkOldGateway(t *testing.T, program string) {
	t.Helper()
	g, l := twoMachines(t)
	g.setClock(program, -48*time.Hour)
	gatewayUp(g).stop()
	g.setClock(program, 0)
	gateway := g.up("gateway", "--port-mapping", "off").listening()
	invite := gateway.invite()

	const slow = -2 * admit.Backdate
	l.setClock(program, slow)
	l.aetherd("up", "--state", l.state("laptop"), "--name", "laptop", invite).refusesClock(t, slow)
	l.mustBeUntouched("after joining with a slow clock")
	l.setClock(program, 0)
	l.up("laptop", "--name", "laptop", invite).connected()
	l.reaches(gateway.address4(), netip.MustParseAddr("fd77::1"))
	if n := len(nodes(gateway)); n != 2 {
		t.Errorf("one gateway and one member make %d nodes", n)
	}
}

// refusesClock checks that a command fails with one line about a clock that is so much ahead.
func (o outcome) refusesClock(t *testing.T, ahead time.Duration) {
	t.Helper()
	o.refused(t, "certificate")
	tellsClock(t, o.stderr, ahead)
}

// tellsClock checks that a line about a clock that is so much ahead tells the time here and the one at which
// the certificate begins or ends, and what to do.
func tellsClock(t *testing.T, line string, ahead time.Duration) {
	t.Helper()
	what, instant := "is not valid yet: it begins at", `(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)`
	if ahead > 0 {
		what = "has expired: it ended at"
	}
	form := "certificate " + what + " " + instant + " and the clock here says " + instant + "; check the clock"
	times := regexp.MustCompile(form).FindStringSubmatch(line)
	if times == nil {
		t.Errorf("the line is not of the form %q: %s", form, line)
		return
	}
	limit, limitErr := time.Parse(time.RFC3339, times[1])
	here, hereErr := time.Parse(time.RFC3339, times[2])
	if err := errors.Join(limitErr, hereErr); err != nil {
		t.Error(err)
	}
	if off := time.Until(here) - ahead; off.Abs() > patience {
		t.Errorf("the line says that it is %s here, which is wrong by %s more than the clock is", here, off)
	}
	if ahead < 0 && !here.Before(limit) || ahead > 0 && !here.After(limit) {
		t.Errorf("the line says that it is %s here, and that the limit is %s", here, limit)
	}
}

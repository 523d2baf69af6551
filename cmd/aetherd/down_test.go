package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/aethertunnel/aethertunnel/cmd/internal/daemon"
	"github.com/aethertunnel/aethertunnel/control/api"
)

func TestDownSaysWhatIsLeft(t *testing.T) {
	for name, c := range map[string]struct {
		cleaned daemon.Cleaned
		running bool
		want    string
	}{
		"stopped": {daemon.Cleaned{}, true, "stopped; the machine is as it was\n"},
		"something is left": {
			daemon.Cleaned{Kept: []string{"rule x: left as it is"}},
			true,
			"stopped; the machine is as it was, except for what somebody else has changed since:\nrule x: left as it is\n",
		},
		"killed before": {daemon.Cleaned{Undone: 3}, false, "not running; took back 3 changes that it had left\n"},
		"nothing to do": {daemon.Cleaned{}, false, "not running; nothing to take back\n"},
	} {
		var out strings.Builder
		if err := describeCleaned(&out, c.cleaned, c.running); err != nil || out.String() != c.want {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
}

// `aetherd status | head -1` is no failure to tell of; a full disk behind the same descriptor is.
func TestReaderGone(t *testing.T) {
	write := func(path string, err error) error {
		return fmt.Errorf("print: %w", &fs.PathError{Op: "write", Path: path, Err: err})
	}
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"no reader":     {write(os.Stdout.Name(), syscall.EPIPE), true},
		"full disk":     {write(os.Stdout.Name(), syscall.ENOSPC), false},
		"another pipe":  {write("/run/x", syscall.EPIPE), false},
		"no write":      {errors.New("x"), false},
		"not about I/O": {syscall.EPIPE, false},
	} {
		if got := readerGone(c.err); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A gateway that was there before tells how to let others in, since its first invite is shown only once.
func TestGatewayTellsHowToInvite(t *testing.T) {
	for name, c := range map[string]struct {
		up   daemon.Up
		want bool
	}{
		"a restart":   {daemon.Up{Status: api.Status{Role: "gateway"}}, true},
		"first start": {daemon.Up{Status: api.Status{Role: "gateway"}, Invite: &api.Invite{Line: "aether://x"}}, false},
		"a member":    {daemon.Up{Status: api.Status{Role: "member"}}, false},
	} {
		var out strings.Builder
		describeAll(&out, c.up, false)
		if got := strings.Contains(out.String(), "`aetherd invite`"); got != c.want {
			t.Errorf("%s: %s", name, out.String())
		}
	}
}

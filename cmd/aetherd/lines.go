package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/daemon"
	"github.com/aethertunnel/aethertunnel/control"
)

// statusLines shows a person what a foreground daemon does, one short line per event.
type statusLines struct {
	mu   sync.Mutex // guards w and last
	w    io.Writer
	last string // repeated lines are shown once
}

func newStatusLines(w io.Writer) *statusLines { return &statusLines{w: w} }

func (s *statusLines) event(e control.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := e.String()
	if line == s.last {
		return
	}
	s.last = line
	fmt.Fprintf(s.w, "%s  %s\n", time.Now().Format(time.TimeOnly), line)
}

// up shows what has been set up, and a new gateway's first invite.
func (s *statusLines) up(u daemon.Up) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := u.Status
	var b strings.Builder
	if u.Created {
		fmt.Fprintf(&b, "\nmade network %q: keys and certificate authority in %s\n", st.Network, "the state directory")
	}
	fmt.Fprintf(&b, "\n  %-10s %s (%s), id %.8s\n", "node", st.Name, st.Role, st.NodeID)
	fmt.Fprintf(&b, "  %-10s %s, mtu %d, %s\n", "device", st.Device.Name, st.Device.MTU, offloads(st.Device))
	fmt.Fprintf(&b, "  %-10s %s\n", "addresses", join(st.Addresses))
	fmt.Fprintf(&b, "  %-10s %s\n", "routes", join(st.Routes))
	if len(st.Listen) > 0 {
		fmt.Fprintf(&b, "  %-10s %s\n", "listening", strings.Join(st.Listen, " "))
		fmt.Fprintf(&b, "  %-10s %s\n", "reachable", strings.Join(st.Advertise, " "))
	}
	fmt.Fprintln(s.w, b.String())
	if u.Invite != nil {
		if err := describeInvite(s.w, *u.Invite); err != nil {
			fmt.Fprintln(s.w, err)
		}
	}
}

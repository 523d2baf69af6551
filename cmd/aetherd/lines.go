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

const (
	// waitingLines bounds what waits for a terminal that does not take it (a person pressed Ctrl-S).
	waitingLines = 256
	// flushLimit is how long the end of the program waits for such a terminal.
	flushLimit = time.Second
)

// statusLines shows a person what a foreground daemon does, one short line per event. Writing happens apart, so that a
// stopped terminal never holds up the daemon; lines that find the queue full are lost.
type statusLines struct {
	queue chan string
	done  chan struct{}

	mu   sync.Mutex // guards last
	last string     // repeated lines are shown once
}

func newStatusLines(w io.Writer) *statusLines {
	s := &statusLines{queue: make(chan string, waitingLines), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for text := range s.queue {
			if _, err := io.WriteString(w, text); err != nil {
				continue // nobody looks any more; the daemon does not care
			}
		}
	}()
	return s
}

// close writes what is waiting and ends. No event may come afterwards.
func (s *statusLines) close() {
	close(s.queue)
	select {
	case <-s.done:
	case <-time.After(flushLimit):
	}
}

func (s *statusLines) show(text string) {
	select {
	case s.queue <- text:
	default:
	}
}

func (s *statusLines) event(e control.Event) {
	line := e.String()
	s.mu.Lock()
	repeated := line == s.last
	s.last = line
	s.mu.Unlock()
	if !repeated {
		s.show(fmt.Sprintf("%s  %s\n", time.Now().Format(time.TimeOnly), line))
	}
}

// up shows what has been set up, and a new network's first invite.
func (s *statusLines) up(w io.Writer) func(daemon.Up) {
	terminal := isTerminal(w)
	return func(u daemon.Up) {
		var b strings.Builder
		describeAll(&b, u, terminal)
		s.show(b.String())
	}
}

func describeAll(w io.Writer, u daemon.Up, withQR bool) {
	describeUp(w, u)
	if u.Invite == nil {
		if u.Status.Role == "gateway" {
			fmt.Fprint(w, "To let another machine join: `aetherd invite`\n\n")
		}
		return
	}
	if err := describeInvite(w, *u.Invite, withQR); err != nil {
		fmt.Fprintln(w, err)
	}
}

func describeUp(w io.Writer, u daemon.Up) {
	st := u.Status
	row := func(name, value string) { fmt.Fprintf(w, "  %-10s %s\n", name, value) }
	fmt.Fprintln(w)
	if u.Created {
		fmt.Fprintf(w, "made network %q: keys and certificate authority are in the state directory\n\n", st.Network)
	}
	row("node", fmt.Sprintf("%s (%s), id %.8s", st.Name, st.Role, st.NodeID))
	row("device", fmt.Sprintf("%s, mtu %d, %s", st.Device.Name, st.Device.MTU, offloads(st.Device)))
	row("addresses", join(st.Addresses))
	row("routes", join(st.Routes))
	if len(st.Listen) > 0 {
		row("listening", strings.Join(st.Listen, " "))
		row("reachable", strings.Join(st.Advertise, " "))
	}
	fmt.Fprintln(w)
}

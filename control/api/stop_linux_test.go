package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"testing"
)

// helperState names the state directory in the environment of a helper process.
const helperState = "AETHERD_API_HELPER"

// TestHelperProcess is a daemon that has left its socket when it is told to end, and stays until its standard input ends.
func TestHelperProcess(t *testing.T) {
	state := os.Getenv(helperState)
	if state == "" {
		t.Skip("only the process that another test starts")
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Listen(SocketPath(state), &book{down: cancel}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("listening")
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	fmt.Println("left")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		t.Fatal(err)
	}
}

// helper starts such a daemon; end lets it go, and line waits for its next word.
func helper(t *testing.T, state string) (end func() error, line func() string) {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestHelperProcess$")
	c.Env = append(os.Environ(), helperState+"="+state)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	words := bufio.NewScanner(out)
	line = func() string {
		words.Scan()
		return words.Text()
	}
	t.Cleanup(func() {
		_ = in.Close() // perhaps closed already
		if err := c.Wait(); err != nil {
			t.Errorf("helper: %v", err)
		}
	})
	if got := line(); got != "listening" {
		t.Fatalf("helper says %q", got)
	}
	return in.Close, line
}

// Stop returns when the daemon's process has ended, though its parent has not waited for it, and not with its socket.
func TestStopWaitsForTheProcess(t *testing.T) {
	state := t.TempDir()
	end, line := helper(t, state)
	stopped := make(chan error, 1)
	go func() { stopped <- NewClient(state).Stop(t.Context()) }()
	if got := line(); got != "left" {
		t.Fatalf("helper says %q", got)
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped while the process is there: %v", err)
	default:
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestStopGivesUpWithItsContext(t *testing.T) {
	state := t.TempDir()
	_, line := helper(t, state)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- NewClient(state).Stop(ctx) }()
	if got := line(); got != "left" {
		t.Fatalf("helper says %q", got)
	}
	cancel()
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestStopWithoutADaemon(t *testing.T) {
	if err := NewClient(t.TempDir()).Stop(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
}

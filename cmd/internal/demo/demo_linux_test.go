package demo_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo"
	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage/stagetest"
)

// demoArgs run the demonstration with measurements too short to mean much.
func demoArgs(more ...string) []string { return append([]string{"demo", "--seconds", "0.3"}, more...) }

func TestDemo(t *testing.T) {
	path := stagetest.Build(t)
	users := map[string]uint32{"this user": 0}
	if os.Geteuid() == 0 {
		users["nobody"] = stagetest.Nobody
	}
	for name, user := range users {
		t.Run("as "+name, func(t *testing.T) { checkDemo(t, user, path) })
	}
}

func checkDemo(t *testing.T, user uint32, path string) {
	t.Helper()
	run := stagetest.Run(t, user, path, demoArgs("--json")...)
	if run.ExitCode != 0 {
		t.Fatalf("exit code %d: %s", run.ExitCode, run.Stderr)
	}
	var result demo.Result
	if err := json.Unmarshal([]byte(run.Stdout), &result); err != nil {
		t.Fatalf("%v: %s", err, run.Stdout)
	}
	if !result.OK || result.Session.KeyExchange != "X25519MLKEM768" || len(result.Session.LaptopAddresses) != 2 {
		t.Errorf("got %+v", result)
	}
	kinds := make(map[demo.Kind]int)
	for _, c := range result.Checks {
		kinds[c.Kind]++
		if !c.OK || c.Error != "" || strings.HasPrefix(c.Text(), "FAILED") {
			t.Errorf("%s: %+v", c.Name, c)
		}
		if measured := c.RTT.P50 > 0 || c.BitsPerSecond > 0 || c.PageTime > 0; !measured {
			t.Errorf("%s: nothing measured: %+v", c.Name, c)
		}
	}
	want := map[demo.Kind]int{demo.KindPing: 4, demo.KindPage: 2, demo.KindThroughput: 2, demo.KindRTT: 2}
	if fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("got checks %v, want %v", kinds, want)
	}
}

func TestDemoText(t *testing.T) {
	path := stagetest.Build(t)
	run := stagetest.Run(t, 0, path, demoArgs()...)
	if run.ExitCode != 0 {
		t.Fatalf("exit code %d: %s", run.ExitCode, run.Stderr)
	}
	for _, want := range []string{
		"gateway", "invite", "X25519MLKEM768", "10.20.30.0/24", "All 10 checks passed", "nothing is left behind",
	} {
		if !strings.Contains(run.Stdout, want) {
			t.Errorf("the demonstration does not say %q", want)
		}
	}
	if strings.Contains(run.Stdout, "aether://") || strings.Contains(run.Stdout, "\x1b") {
		t.Error("it shows the invite, or colours without a terminal")
	}
	if t.Failed() {
		t.Log(run.Stdout)
	}
}

// TestDemoInterrupted ends a demonstration in the middle, from outside as a Ctrl-C and as somebody who has lost
// patience.
func TestDemoInterrupted(t *testing.T) {
	path := stagetest.Build(t)
	before := listing(t)
	c := exec.Command(path, "demo", "--seconds", "5")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var seen []byte
	for buffer := make([]byte, 4096); !strings.Contains(string(seen), "ping gateway"); {
		n, err := out.Read(buffer)
		if err != nil {
			t.Fatalf("%v after %s", err, seen)
		}
		seen = append(seen, buffer[:n]...)
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); c.ProcessState.ExitCode() != 1 {
		t.Errorf("got %v, want exit code 1", err)
	}
	stagetest.NothingLeft(t, path)
	if after := listing(t); !slices.Equal(before, after) {
		t.Errorf("left behind: before %v, after %v", before, after)
	}
}

// listing is what of ours the machine's own /run and temporary directory have.
func listing(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"/run/aetherd-*", filepath.Join(os.TempDir(), "aetherd*")} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

package bench

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage/stagetest"
)

// TestBench measures every row as a user does, too short to mean anything, and checks the shape of the results.
func TestBench(t *testing.T) {
	path := stagetest.Build(t)
	run := stagetest.Run(t, 0, path, "bench", "--json", "--only", "all", "--seconds", "0.1", "--passes", "1")
	report := parseReport(t, run)
	if len(report.Contenders) != 2 || report.Contenders[0].Name != "bare link" || report.Contenders[1].Name != ownName {
		t.Fatalf("got contenders %+v", report.Contenders)
	}
	if m := report.Machine; m.Cores < 1 || m.MemoryBytes < 1e6 || m.Kernel == "" || m.CPU == "" || m.Go == "" {
		t.Errorf("got machine %+v", m)
	}
	if !slices.Equal(report.Rows, names(Rows())) || len(report.Measures) != len(Measures(Rows())) {
		t.Errorf("got rows %v and %d measures", report.Rows, len(report.Measures))
	}
	for _, m := range report.Measures {
		if m.Unit == "" || m.Name == "" {
			t.Errorf("got measure %+v", m)
		}
		checkMeasure(t, m, report)
	}
	if remarks := strings.Join(report.Remarks, "\n"); !strings.Contains(remarks, "the generator passes") {
		t.Errorf("got remarks %s", remarks)
	}
}

// TestBenchRival measures beside wireguard-go, on every network, or where there is none beside this same build.
func TestBenchRival(t *testing.T) {
	path := stagetest.Build(t)
	only, vs := "idle,memory", selfName
	if rival, err := exec.LookPath(rivalName); err == nil {
		only, vs = "lan,hub,idle,wan,memory", rivalName+"="+rival
	}
	run := stagetest.Run(t, 0, path, "bench", "--json", "--only", only, "--vs", vs, "--seconds", "0.1", "--passes", "2")
	report := parseReport(t, run)
	if len(report.Contenders) != 3 || len(report.Rows) != len(strings.Split(only, ",")) {
		t.Fatalf("got %+v", report)
	}
	for _, m := range report.Measures {
		checkMeasure(t, m, report)
	}
	if !strings.Contains(run.Stderr, "pass 2 of 2, idle") {
		t.Errorf("progress reads %q", run.Stderr)
	}
}

func parseReport(t *testing.T, run stagetest.Outcome) (r Report) {
	t.Helper()
	if run.ExitCode != 0 {
		t.Fatalf("exit code %d: %s", run.ExitCode, run.Stderr)
	}
	if err := json.Unmarshal([]byte(run.Stdout), &r); err != nil {
		t.Fatalf("%v: %s", err, run.Stdout)
	}
	return r
}

// checkMeasure makes sure that a measure is there for everybody who has it, is plausible, and is compared.
func checkMeasure(t *testing.T, m Measure, report Report) {
	t.Helper()
	// Ranges so wide that only a wrong unit falls outside. The clock of CPU time is too coarse for a lower bound.
	limits := map[string][2]float64{
		"bit/s": {1e5, 1e13}, "packets/s": {100, 1e8}, "s": {1e-6, 10}, "s/GB": {0, 1e4}, "s/million": {0, 1e4}, "B": {1e6, 1e11},
	}
	l, known := limits[m.Unit]
	if !known {
		t.Errorf("%s is in %s", m.Key, m.Unit)
	}
	someZero := false
	for i, c := range report.Contenders {
		s, found := c.Results[m.Key]
		if bare := i == 0; found == (bare && ofDaemons(m.Key)) {
			t.Errorf("%s: there is a result for %s: %v", m.Key, c.Name, found)
		}
		if !found {
			continue
		}
		if len(s.Samples) != report.Passes || s.Median < s.Min || s.Max < s.Median || s.Min < l[0] || s.Max > l[1] {
			t.Errorf("%s of %s: %+v %s", m.Key, c.Name, s, m.Unit)
		}
		someZero = someZero || s.Min == 0
	}
	want := len(report.Contenders) - 1
	if ofDaemons(m.Key) {
		want-- // with the bare link
	}
	compared := 0
	for _, r := range report.Ratios {
		if r.Key == m.Key && r.Min <= r.Value && r.Value <= r.Max {
			compared++
		}
	}
	if compared != want && !someZero {
		t.Errorf("%s is compared %d times, want %d", m.Key, compared, want)
	}
}

func TestCheckRival(t *testing.T) {
	script := func(text string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := script("echo wireguard-go v0.1; echo more", 0o755)
	if version, err := CheckRival(t.Context(), good); err != nil || version != "v0.1" {
		t.Errorf("got %q, %v", version, err)
	}
	for name, path := range map[string]string{
		"nothing there":    filepath.Join(t.TempDir(), "none"),
		"a directory":      t.TempDir(),
		"another program":  script("echo nebula 1.9", 0o755),
		"one that fails":   script("echo wireguard-go v0.1; exit 3", 0o755),
		"not a program":    script("echo wireguard-go v0.1", 0o644),
		"one that is mute": script("", 0o755),
	} {
		version, err := CheckRival(t.Context(), path)
		if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %q, %v, want one line with the path", name, version, err)
		}
	}
}

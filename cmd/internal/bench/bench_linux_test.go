package bench

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage/stagetest"
)

// TestBench runs the benchmark as a user does, too short to mean anything, and checks the shape of the results.
func TestBench(t *testing.T) {
	path := stagetest.Build(t)
	run := stagetest.Run(t, 0, path, "bench", "--json", "--seconds", "0.1", "--passes", "2")
	if run.ExitCode != 0 {
		t.Fatalf("exit code %d: %s", run.ExitCode, run.Stderr)
	}
	var report Report
	if err := json.Unmarshal([]byte(run.Stdout), &report); err != nil {
		t.Fatalf("%v: %s", err, run.Stdout)
	}
	if len(report.Contenders) != 2 || report.Contenders[0].Name != "bare link" || report.Contenders[1].Name != aetherdName {
		t.Fatalf("got contenders %+v", report.Contenders)
	}
	if m := report.Machine; m.Cores < 1 || m.MemoryBytes < 1e6 || m.Kernel == "" || m.CPU == "" || m.Go == "" {
		t.Errorf("got machine %+v", m)
	}
	if len(report.Measures) != len(Measures()) {
		t.Errorf("got %d measures, want %d", len(report.Measures), len(Measures()))
	}
	for _, m := range report.Measures {
		if m.Unit == "" || m.Name == "" {
			t.Errorf("got measure %+v", m)
		}
		checkMeasure(t, m, report)
	}
	if !strings.Contains(run.Stderr, "pass 2 of 2, aetherd") {
		t.Errorf("progress reads %q", run.Stderr)
	}
}

// checkMeasure makes sure that a measure is there for everybody who has it, is positive and plausible, and is compared.
func checkMeasure(t *testing.T, m Measure, report Report) {
	t.Helper()
	ofDaemons := m.Key == KeyCPU || m.Key == KeyMemory
	for i, c := range report.Contenders {
		s, found := c.Results[m.Key]
		if bare := i == 0; found == (bare && ofDaemons) {
			t.Errorf("%s: there is a result for %s: %v", m.Key, c.Name, found)
		}
		if !found {
			continue
		}
		if len(s.Samples) != report.Passes || s.Min <= 0 || s.Median < s.Min || s.Max < s.Median {
			t.Errorf("%s of %s: %+v", m.Key, c.Name, s)
		}
		// Ranges so wide that only a wrong unit falls outside.
		limits := map[string][2]float64{
			"bit/s": {1e5, 1e13}, "packets/s": {100, 1e8}, "s": {1e-6, 10}, "s/GB": {0.01, 1e4}, "B": {1e6, 1e11},
		}
		if l, known := limits[m.Unit]; !known || s.Median < l[0] || s.Median > l[1] {
			t.Errorf("%s of %s is %v %s", m.Key, c.Name, s.Median, m.Unit)
		}
	}
	compared := 0
	for _, r := range report.Ratios {
		if r.Key == m.Key && r.Value > 0 {
			compared++
		}
	}
	if want := 1; !ofDaemons && compared != want {
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

package bench

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage/stagetest"
)

// TestCrowd compares a crowd that is hardly larger than its active members, too short to mean anything.
func TestCrowd(t *testing.T) {
	path := stagetest.Build(t)
	run := stagetest.Run(t, 0, path, "bench", "--crowd", "130", "--json", "--seconds", "0.1", "--passes", "2")
	if run.ExitCode != 0 {
		t.Fatalf("exit code %d: %s", run.ExitCode, run.Stderr)
	}
	var r CrowdReport
	if err := json.Unmarshal([]byte(run.Stdout), &r); err != nil {
		t.Fatalf("%v: %s", err, run.Stdout)
	}
	if r.Few.Peers != ActiveMembers || r.Many.Peers != 130 || r.Active != ActiveMembers || r.Memory.Peers != 130 {
		t.Errorf("got %+v", r)
	}
	for name, s := range map[string]Summary{
		"few up": r.Few.Up, "few down": r.Few.Down, "many up": r.Many.Up, "many down": r.Many.Down,
	} {
		if len(s.Samples) != 2 || s.Min < 1e5 || s.Max > 1e13 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	// Memory of one peer: ranges so wide that only a wrong unit, or a part that was not there, falls outside.
	for name, bytes := range map[string]float64{
		"known": r.Memory.Known, "carrier": r.Memory.Carrier, "lane": r.Memory.Lane, "negotiation": r.Memory.Negotiation,
	} {
		if bytes < 100 || bytes > 1e6 {
			t.Errorf("%s takes %v bytes", name, bytes)
		}
	}
	run = stagetest.Run(t, 0, path, "bench", "--crowd", "100")
	if run.ExitCode == 0 || !strings.Contains(run.Stderr, "want 101 to") {
		t.Errorf("a crowd of active members alone: exit code %d, %s", run.ExitCode, run.Stderr)
	}
	help := stagetest.Run(t, 0, path, "bench", "--help")
	if strings.Contains(help.Stdout, "crowd") {
		t.Errorf("help tells users of crowds: %s", help.Stdout)
	}
}

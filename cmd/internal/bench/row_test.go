package bench

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseRows(t *testing.T) {
	all := names(Rows())
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"", []string{rowTCP, rowSmall, rowCost, rowIdle, rowSparse, rowLoaded, rowMemory}},
		{"all", all},
		{"nic,all", all},
		{strings.Join(all, ","), all},
		{"memory, tcp,memory", []string{rowTCP, rowMemory}},
	} {
		rows, err := ParseRows(tt.text)
		if got := names(rows); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %v, %v, want %v", tt.text, got, err, tt.want)
		}
	}
	for _, text := range []string{"tpc", "tcp,", ",", "tcp;nic", "TCP"} {
		_, err := ParseRows(text)
		if err == nil || !strings.Contains(err.Error(), "--only "+text) || !strings.Contains(err.Error(), "nogso, lan, hub") {
			t.Errorf("%q: got %v, want an error with the names that there are", text, err)
		}
	}
}

// TestRows makes sure that no two rows or measures are taken for one, and that help has all of them.
func TestRows(t *testing.T) {
	keys, labels, help := make(map[string]bool), make(map[string]bool), RowsHelp()
	for _, r := range Rows() {
		if !strings.Contains(help, r.Name) || !strings.Contains(help, r.Doc) || r.Doc == "" || len(r.measures) == 0 {
			t.Errorf("%s: %+v is not explained in\n%s", r.Name, r, help)
		}
		for _, m := range r.measures {
			if keys[m.Key] || labels[m.Name] || m.scale <= 0 || m.Unit == "" || m.shown == "" {
				t.Errorf("%s: %+v", r.Name, m)
			}
			keys[m.Key], labels[m.Name] = true, true
		}
	}
	// These are in other people's scripts.
	for _, key := range []string{
		"tcp_1_up", "tcp_8_down", "cpu_per_gigabyte", "small_packets", "rtt_idle_p50", "rtt_sparse_p99", "rtt_loaded_p999", "peak_memory", "nic_tcp_1_up",
		"nogso_cpu_all_per_gigabyte", "hub_tcp_1_down", "wan_tcp_8_up", "large_packets", "cpu_per_million_packets",
	} {
		if !keys[key] {
			t.Errorf("no measure %s", key)
		}
	}
}

func TestPlan(t *testing.T) {
	p := plan{duration: 2 * time.Second}
	usual, err := ParseRows("")
	if err != nil {
		t.Fatal(err)
	}
	if p.pass(usual) < 8*p.duration || p.pass(Rows()) < 2*p.pass(usual) || p.pass(nil) != 0 {
		t.Errorf("passes take %v, %v and %v", p.pass(usual), p.pass(Rows()), p.pass(nil))
	}
	if short := (plan{duration: time.Millisecond}); short.attempt() != minAttempt || short.searchSteps() >= p.searchSteps() {
		t.Errorf("short attempts: %v, %d steps", short.attempt(), short.searchSteps())
	}
}

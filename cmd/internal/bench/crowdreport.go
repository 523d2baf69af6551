package bench

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/bench/crowd"
)

// ActiveMembers is how many members of a crowd have traffic.
const ActiveMembers = 100

// A CrowdReport says what a gateway's idle peers cost its active ones, and what memory they take. It is also the form of
// `aetherd bench --crowd --json`.
type CrowdReport struct {
	Machine Machine   `json:"machine"`
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"` // of each measurement
	Passes  int       `json:"passes"`
	Active  int       `json:"active"` // peers with traffic
	// Few is a gateway that has the active peers alone, Many one with all.
	Few  CrowdResult `json:"few"`
	Many CrowdResult `json:"many"`
	// Ratios are the medians, over the passes, of what Many has to what Few has.
	Ratios CrowdRatios  `json:"ratios"`
	Memory crowd.Memory `json:"memory"`
}

// A CrowdResult is what one of the two gateways does: goodput of TCP in bit/s, and CPU seconds per gigabyte of it, which
// are those of the whole process, the members' part among them.
type CrowdResult struct {
	Peers        int     `json:"peers"`
	Up           Summary `json:"up"`
	Down         Summary `json:"down"`
	UpCPU        Summary `json:"up_cpu_per_gigabyte"`
	DownCPU      Summary `json:"down_cpu_per_gigabyte"`
	LostBytes    uint64  `json:"lost_bytes"`    // of all passes
	SetupSeconds float64 `json:"setup_seconds"` // until all lanes carried packets
}

// CrowdRatios are ratios of the same pass.
type CrowdRatios struct {
	Up      Summary `json:"up"`
	Down    Summary `json:"down"`
	UpCPU   Summary `json:"up_cpu_per_gigabyte"`
	DownCPU Summary `json:"down_cpu_per_gigabyte"`
}

// WriteCrowd shows a report to a person.
func WriteCrowd(w io.Writer, r CrowdReport) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%d active peers of %d, and of %d: medians of %s, smallest..largest\n", r.Active, r.Few.Peers,
		r.Many.Peers, plural(r.Passes, "pass", "passes"))
	for _, row := range []struct {
		name             string
		few, many, ratio Summary
		scale            float64
	}{
		{"TCP up, Gbit/s", r.Few.Up, r.Many.Up, r.Ratios.Up, 1e9},
		{"TCP down, Gbit/s", r.Few.Down, r.Many.Down, r.Ratios.Down, 1e9},
		{"CPU up, s/GB", r.Few.UpCPU, r.Many.UpCPU, r.Ratios.UpCPU, 1},
		{"CPU down, s/GB", r.Few.DownCPU, r.Many.DownCPU, r.Ratios.DownCPU, 1},
	} {
		fmt.Fprintf(&text, "  %s %s %s  ratio %s\n", pad(row.name, nameColumns), spread(row.few, row.scale),
			spread(row.many, row.scale), spread(row.ratio, 1))
	}
	fmt.Fprintf(&text, "  made in %.1f s and %.1f s; lost %d and %d bytes\n", r.Few.SetupSeconds, r.Many.SetupSeconds,
		r.Few.LostBytes, r.Many.LostBytes)
	m := r.Memory
	fmt.Fprintf(&text, "memory per peer of %d: %.0f B (known %.0f, carrier %.0f, lane %.0f, negotiation %.0f); "+
		"%.0f B with what is free between\n", m.Peers, m.Sum, m.Known, m.Carrier, m.Lane, m.Negotiation, m.Spans)
	_, err := io.WriteString(w, text.String())
	return err
}

func spread(s Summary, scale float64) string {
	text := fmt.Sprintf("%s (%s..%s)", number(s.Median/scale), number(s.Min/scale), number(s.Max/scale))
	return pad(text, spreadColumns+valueColumns)
}

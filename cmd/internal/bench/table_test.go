package bench

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.000123: "0.0001", 0.0456: "0.0456", 0.5: "0.500", 1: "1.00", 12.345: "12.3", 999.4: "999", 30783: "30783",
	} {
		if got := number(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
}

// ofDaemons tells the measures that the bare link has not.
func ofDaemons(key string) bool {
	return strings.HasSuffix(key, KeyCPU) || key == KeyPacketCPU || key == KeyMemory
}

// report makes one in which every measure has a value, with a rival or without.
func report(passes int, contenders ...string) Report {
	r := Report{
		Machine: Machine{CPU: "Some Processor 9000", Cores: 2, MemoryBytes: 16e9, Kernel: "6.1.0", Arch: "amd64", Go: "go1.26"},
		Began:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 3, Passes: passes, Rows: names(Rows()),
		Measures: Measures(Rows()), Remarks: []string{"Some remark."},
	}
	for i, name := range contenders {
		var samples []Sample
		for pass := range passes {
			s := make(Sample)
			for _, m := range Measures(Rows()) {
				if i > 0 || !ofDaemons(m.Key) {
					s[m.Key] = m.scale * float64(10*(i+1)+pass)
				}
			}
			samples = append(samples, s)
		}
		c := Contender{Name: name, Results: Summarise(r.Measures, samples)}
		if i > 0 {
			c.Version = "v1.0"
		}
		r.Contenders = append(r.Contenders, c)
	}
	for i, c := range r.Contenders {
		if i != 1 {
			r.Ratios = append(r.Ratios, Compare(r.Measures, r.Contenders[1], c)...)
		}
	}
	return r
}

func tableText(t *testing.T, r Report, color bool) string {
	t.Helper()
	var b strings.Builder
	if err := WriteTable(&b, r, color); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTable(t *testing.T) {
	text := tableText(t, report(3, "bare link", "aetherd", rivalName), false)
	for _, want := range []string{
		"Some Processor 9000, 2 cores, 16 GB; Linux 6.1.0 amd64",
		"  aetherd v1.0, wireguard-go v1.0; built with go1.26\n", "2026-01-02 03:04 UTC; 3 passes, 3 s per measurement\n",
		"  TCP, 1 stream up      Gbit/s     11.0  10.0..12.0      21.0  20.0..22.0      31.0  30.0..32.0     0.677×",
		"  TCP, CPU of daemons   s/GB          –                  21.0  20.0..22.0      31.0  30.0..32.0     0.677×",
		"  wan: 8 streams up     Mbit/s     11.0", "Ratio: aetherd to wireguard-go, the median", "  Some remark.\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q", want)
		}
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 110 {
			t.Errorf("a line has %d columns: %q", n, line)
		}
	}
	if strings.Contains(text, "busy") || strings.Contains(text, "\x1b") {
		t.Error("a quiet machine is called busy, or there is colour that nobody has asked for")
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestTableOfOneRow shows a table that says nothing of what was not measured.
func TestTableOfOneRow(t *testing.T) {
	rows, err := ParseRows(rowSmall)
	if err != nil {
		t.Fatal(err)
	}
	r := report(3, "bare link", "aetherd", rivalName)
	r.Rows, r.Measures = names(rows), Measures(rows)
	text := tableText(t, r, false)
	if !strings.Contains(text, "64 B UDP, clean") || !strings.Contains(text, "more is better") {
		t.Errorf("the table lacks its row:\n%s", text)
	}
	for _, other := range []string{"TCP", "RTT", "less is better", "CPU:", "Memory", "nic"} {
		if strings.Contains(text, other) {
			t.Errorf("the table has %q:\n%s", other, text)
		}
	}
}

func TestTableWithoutRival(t *testing.T) {
	r := report(1, "bare link", "aetherd")
	r.Machine.LoadAverage = 1.5
	text := tableText(t, r, false)
	for _, want := range []string{
		"The machine was busy before the start: load average 1.5 on 2 cores.",
		"One pass says nothing about noise", "Ratio: aetherd to bare link, ", "2.00×", "1 pass,",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
	colored := tableText(t, r, true)
	if plain := strings.NewReplacer("\x1b[1m", "", "\x1b[2m", "", "\x1b[31m", "", "\x1b[32m", "", "\x1b[0m", "").
		Replace(colored); plain != text {
		t.Errorf("colour changes more than colour:\n%s", plain)
	}
	const more, less = "\x1b[32m  2.00×", "\x1b[31m  2.00×"
	if !strings.Contains(colored, more) || !strings.Contains(colored, less) {
		t.Error("twice as much should be good for some measures and bad for others")
	}
}

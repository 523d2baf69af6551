package bench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// busyPart is the load per core above which other programs are in the way.
const busyPart = 0.3

// Columns of the table.
const (
	nameColumns   = 22
	unitColumns   = 8
	valueColumns  = 7
	spreadColumns = 15
)

// WriteTable shows a report to a person: rows are measures, columns contenders and, last, the ratio of aetherd to its
// rival: the other program if there is one, or the bare link.
func WriteTable(w io.Writer, r Report, color bool) error {
	t := table{report: r, color: color, ratios: make(map[string]Ratio)}
	t.pickRatios()
	t.machine()
	t.header()
	for _, less := range []bool{false, true} {
		t.section(less)
	}
	t.notes()
	_, err := io.WriteString(w, t.text.String())
	return err
}

// table is a report being written.
type table struct {
	report Report
	color  bool
	ratios map[string]Ratio // of the last column, by the keys of the measures
	rival  string           // to whom
	text   strings.Builder
}

// pickRatios takes those to the last contender, which is the rival if there is one.
func (t *table) pickRatios() {
	t.rival = t.report.Contenders[0].Name
	if last := t.report.Contenders[len(t.report.Contenders)-1]; len(t.report.Contenders) > 2 {
		t.rival = last.Name
	}
	for _, r := range t.report.Ratios {
		if r.To == t.rival {
			t.ratios[r.Key] = r
		}
	}
}

func (t *table) line(format string, args ...any) {
	t.text.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " "))
	t.text.WriteByte('\n')
}

func (t *table) paint(code, text string) string {
	if !t.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (t *table) machine() {
	r, m := t.report, t.report.Machine
	t.line("")
	t.line("  %s, %s, %.0f GB; Linux %s %s", m.CPU, plural(m.Cores, "core", "cores"), float64(m.MemoryBytes)/1e9,
		m.Kernel, m.Arch)
	var versions []string
	for _, c := range r.Contenders {
		if c.Version != "" {
			versions = append(versions, c.Name+" "+c.Version)
		}
	}
	t.line("  %s; built with %s", strings.Join(versions, ", "), m.Go)
	t.line("  %s; %s, %g s per measurement", r.Began.Format("2006-01-02 15:04 MST"), plural(r.Passes, "pass", "passes"),
		r.Seconds)
	if m.LoadAverage > float64(m.Cores)*busyPart {
		t.line("  %s", t.paint("31", fmt.Sprintf("The machine was busy before the start: load average %.1f on %s. Expect noise.",
			m.LoadAverage, plural(m.Cores, "core", "cores"))))
	}
}

func (t *table) header() {
	t.line("")
	cells := pad("", nameColumns+unitColumns)
	for _, c := range t.report.Contenders {
		cells += pad("  "+t.paint("1", c.Name), valueColumns+spreadColumns+t.invisible())
	}
	t.line("  %s%s", cells, t.paint("1", "  ratio"))
}

// invisible is how many bytes paint adds to a text.
func (t *table) invisible() int { return len(t.paint("1", "")) }

// section writes the rows of which more, or less, is better.
func (t *table) section(less bool) {
	title := "more is better"
	if less {
		title = "less is better"
	}
	measures := slices.DeleteFunc(slices.Clone(t.report.Measures), func(m Measure) bool { return m.Less != less })
	if len(measures) == 0 {
		return
	}
	t.line("  %s", t.paint("2", title))
	for _, m := range measures {
		row := pad(m.Name, nameColumns) + pad(m.shown, unitColumns)
		for _, c := range t.report.Contenders {
			row += cell(m, c.Results)
		}
		t.line("  %s%s", row, t.ratio(m))
	}
}

// cell is a median and, of several passes, the smallest and the largest value.
func cell(m Measure, results map[string]Summary) string {
	s, ok := results[m.Key]
	if !ok {
		return right("–", valueColumns) + pad("", spreadColumns)
	}
	spread := ""
	if len(s.Samples) > 1 {
		spread = number(s.Min/m.scale) + ".." + number(s.Max/m.scale)
	}
	return right(number(s.Median/m.scale), valueColumns) + pad("  "+spread, spreadColumns)
}

func (t *table) ratio(m Measure) string {
	r, ok := t.ratios[m.Key]
	if !ok {
		return "   –"
	}
	text := "  " + number(r.Value) + "×"
	switch {
	case r.WithinNoise:
		return "≈" + text[1:]
	case (r.Value < 1) == m.Less:
		return t.paint("32", text)
	}
	return t.paint("31", text)
}

func (t *table) notes() {
	t.line("")
	t.line("  Ratio: aetherd to %s, the median of what the passes found.", t.rival)
	if t.report.Passes > 1 {
		t.line("  Others: medians of the passes, and min..max. ≈: within the noise, passes disagree which is better.")
	} else {
		t.line("  One pass says nothing about noise: take --passes 3 or more.")
	}
	t.line("  All machines, the links between them and the load share the %s of this one.",
		plural(t.report.Machine.Cores, "core", "cores"))
	for _, note := range []struct{ row, text string }{
		{rowTCP, "CPU: for all TCP of a row, per GB of payload; \"of all\" adds both ends of the traffic and ksoftirqd."},
		{rowNIC, "nic: single packets cross the link, cut in software, joined by GRO. nogso: they are not joined."},
		{rowWAN, "wan: 25 ms and 0.1 % loss each way, in user space; chance decides, so take more passes than elsewhere."},
		{rowMemory, "Memory: peak resident set, after all rows on the same cable."},
	} {
		if t.has(note.row) {
			t.line("  %s", note.text)
		}
	}
	if t.has(rowLarge) || t.has(rowSmall) {
		t.line("  UDP, clean: the highest paced rate up at which under 1 %% is lost; 64 B of payload, 1400 B of packet.")
	}
	for _, remark := range t.report.Remarks {
		t.line("  %s", remark)
	}
	t.line("")
}

func (t *table) has(row string) bool { return slices.Contains(t.report.Rows, row) }

// number writes a value with three significant digits, as far as they are behind the point.
func number(v float64) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Sprint(v)
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	return fmt.Sprintf("%.*f", min(max(digits, 0), 4), v)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func pad(text string, columns int) string {
	return text + strings.Repeat(" ", max(0, columns-utf8.RuneCountInString(text)))
}

func right(text string, columns int) string {
	return strings.Repeat(" ", max(0, columns-utf8.RuneCountInString(text))) + text
}

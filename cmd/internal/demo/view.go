package demo

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// A View shows a demonstration to a person, line by line as it happens and in a table at the end.
type View struct {
	W     io.Writer
	Color bool // W is a terminal that may have colours
}

// Colours of ECMA-48 section 8.3.117.
const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
	cyan  = "36"
)

// labelColumns is the width of the left column of the steps.
const labelColumns = 11

func (v View) paint(color, text string) string {
	if !v.Color || color == "" || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// Title shows a heading.
func (v View) Title(text string) { fmt.Fprintf(v.W, "\n%s\n\n", v.paint(bold, text)) }

// Step shows one thing that happened. An empty label goes on with the step before.
func (v View) Step(label, format string, args ...any) {
	padding := strings.Repeat(" ", max(1, labelColumns-utf8.RuneCountInString(label)))
	fmt.Fprintf(v.W, "  %s%s%s\n", v.paint(cyan, label), padding, fmt.Sprintf(format, args...))
}

// Command shows what somebody would type for the step before.
func (v View) Command(text string) { v.Step("", "%s", v.paint(dim, "$ "+text)) }

// Table begins the table of what is measured. The checks need not have been run: their names and targets say how wide
// it is.
func (v View) Table(planned []Check) Table {
	t := Table{View: v, name: len(nameTitle), target: len(targetTitle)}
	for _, c := range planned {
		t.name = max(t.name, utf8.RuneCountInString(c.Name))
		t.target = max(t.target, utf8.RuneCountInString(c.Target))
	}
	fmt.Fprintln(v.W)
	t.row(nameTitle, targetTitle, resultTitle)
	fmt.Fprintf(v.W, "\n  %s\n", v.paint(dim, strings.Repeat("─", t.name+t.target+resultColumns)))
	return t
}

// Titles of the columns, and the usual width of the last one.
const (
	nameTitle, targetTitle, resultTitle = "through the tunnel", "target", "result"

	resultColumns = 48
)

// A Table shows checks as they are run, a row each.
type Table struct {
	View

	name, target int // widths of the first two columns
}

func (t Table) row(name, target, result string) {
	fmt.Fprintf(t.W, "  %s  %s  %s", pad(name, t.name), pad(target, t.target), result)
}

// Begin shows that a check is being run, where that can be written over.
func (t Table) Begin(c Check) {
	if t.Color {
		t.row(c.Name, c.Target, t.paint(dim, "…"))
	}
}

// Done shows what came of it.
func (t Table) Done(c Check) {
	if t.Color {
		fmt.Fprint(t.W, "\r\x1b[K")
	}
	color := green
	if !c.OK {
		color = red
	}
	t.row(c.Name, c.Target, t.paint(color, c.Text()))
	fmt.Fprintln(t.W)
}

// End shows the verdict.
func (v View) End(r Result) {
	fmt.Fprintln(v.W)
	if r.OK {
		fmt.Fprintf(v.W, "  %s  All %d checks passed in %.1f s; nothing is left behind.\n\n", v.paint(green, "✓"),
			len(r.Checks), r.Elapsed.Seconds())
		return
	}
	if failures := len(r.Failures()); failures > 0 {
		fmt.Fprintf(v.W, "  %s  %d of %d checks failed.\n\n", v.paint(red, "✗"), failures, len(r.Checks))
	}
}

func pad(text string, columns int) string {
	return text + strings.Repeat(" ", max(0, columns-utf8.RuneCountInString(text)))
}

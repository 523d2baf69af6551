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

// Table shows what was measured.
func (v View) Table(r Result) {
	name, target := len("through the tunnel"), len("target")
	for _, c := range r.Checks {
		name, target = max(name, utf8.RuneCountInString(c.Name)), max(target, utf8.RuneCountInString(c.Target))
	}
	row := func(a, b, c, color string) {
		fmt.Fprintf(v.W, "  %s  %s  %s\n", pad(a, name), pad(b, target), v.paint(color, c))
	}
	fmt.Fprintln(v.W)
	row("through the tunnel", "target", "result", "")
	fmt.Fprintf(v.W, "  %s\n", v.paint(dim, strings.Repeat("─", name+target+48)))
	for _, c := range r.Checks {
		color := green
		if !c.OK {
			color = red
		}
		row(c.Name, c.Target, c.Text(), color)
	}
	fmt.Fprintln(v.W)
}

// End shows the verdict.
func (v View) End(r Result) {
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

package bench

import (
	"fmt"
	"io"
	"time"
)

// Progress shows how far a benchmark is: on a terminal one line that is written over, elsewhere a line at the start of
// each part of a pass.
type Progress struct {
	w        io.Writer
	terminal bool
	now      func() time.Time

	total, done time.Duration // estimated, of all steps and of those behind us
	began       time.Time
	stage       string // pass and part of it
}

// NewProgress shows progress on w. The clock is for the estimate of what is left.
func NewProgress(w io.Writer, terminal bool, now func() time.Time) *Progress {
	return &Progress{w: w, terminal: terminal, now: now}
}

// start says how long it is all expected to take.
func (p *Progress) start(total time.Duration) {
	p.total, p.began = total, p.now()
	if !p.terminal {
		fmt.Fprintf(p.w, "bench: about %s\n", remaining(total))
	}
}

// pass begins a part of a pass.
func (p *Progress) pass(number, of int, part string) {
	p.stage = fmt.Sprintf("pass %d of %d, %s", number, of, part)
	if !p.terminal {
		fmt.Fprintf(p.w, "bench: %s\n", p.stage)
	}
}

// step begins a measurement that is expected to take a while.
func (p *Progress) step(name string, expected time.Duration) {
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K  %3.0f %%  %s: %s, %s left", 100*p.part(), p.stage, name, remaining(p.left()))
	}
	p.done += expected
}

// end takes the line away.
func (p *Progress) end() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func (p *Progress) part() float64 {
	if p.total <= 0 {
		return 0
	}
	return min(1, float64(p.done)/float64(p.total))
}

// left corrects the estimate by how long what is done has really taken, once that says something.
func (p *Progress) left() time.Duration {
	left := max(0, p.total-p.done)
	const enough = 0.05
	if p.part() < enough {
		return left
	}
	return time.Duration(float64(left) * float64(p.now().Sub(p.began)) / float64(p.done))
}

// remaining writes a time as people say it.
func remaining(d time.Duration) string {
	d = d.Round(time.Second)
	if d < time.Minute {
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
}

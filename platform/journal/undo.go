package journal

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Left is something that was not taken back because somebody else has changed it since.
type Left struct {
	// Thing names it, for example "sysctl net/ipv4/conf/all/src_valid_mark".
	Thing string
	// Set is what we had set.
	Set string
	// Found is what is there now.
	Found string
}

// String returns one line for an operator.
func (l Left) String() string {
	return fmt.Sprintf("%s: left as it is: we set %q, somebody has since made it %q", l.Thing, l.Set, l.Found)
}

// Undoer takes back the change of one record. It is called with the record of a change that was made, half
// made, never made, or taken back before; only the first two need work. What somebody else has changed since
// it leaves and returns. An error means that the change is still there and keeps the record pending.
type Undoer func(Record) ([]Left, error)

// Registry maps a kind of change to its undoer.
type Registry map[string]Undoer

// Merge returns one registry with the undoers of all. Kinds carry their package's name, so they do not
// collide.
func Merge(registries ...Registry) Registry {
	out := Registry{}
	for _, r := range registries {
		maps.Copy(out, r)
	}
	return out
}

// Failure is a record whose undoer returned an error. The record stays pending.
type Failure struct {
	Record Record
	Err    error
}

// Report is what [Journal.Undo] did.
type Report struct {
	// Undone counts the records of this scope that were taken back or found gone.
	Undone int
	// Left lists what somebody else has changed since.
	Left []Left
	// Elsewhere lists the pending records of other network namespaces; they were not touched.
	Elsewhere []Record
	// Failed lists the records that are still pending because undoing them failed.
	Failed []Failure
	// Void, Damaged and Evicted count what Open dropped: records of another boot, unreadable lines, and the
	// oldest records of other namespaces beyond [MaxElsewhere].
	Void, Damaged, Evicted int
	// ForgetErr is set when the file could not be marked; what was undone stays undone.
	ForgetErr error
}

// Err joins the failures into one error, or returns nil.
func (r Report) Err() error {
	var errs []error
	for _, f := range r.Failed {
		errs = append(errs, fmt.Errorf("undo %s: %w", f.Record.Kind, f.Err))
	}
	if r.ForgetErr != nil {
		errs = append(errs, r.ForgetErr)
	}
	return errors.Join(errs...)
}

// Undo takes back every pending change of this scope, newest first, through the undoers in registry. It goes
// on after a failure. It must run in the network namespace that the journal was opened in.
func (j *Journal) Undo(registry Registry) Report {
	j.undoMu.Lock()
	defer j.undoMu.Unlock()

	j.mu.Lock()
	report := Report{Void: j.opened.void, Damaged: j.opened.damaged, Evicted: j.opened.evicted}
	j.opened = openCounts{}
	j.mu.Unlock()

	var done []ID
	for _, r := range slices.Backward(j.Pending()) {
		if r.Scope != j.scope {
			report.Elsewhere = append(report.Elsewhere, r)
			continue
		}
		left, err := undoOne(registry, r)
		report.Left = append(report.Left, left...)
		if err != nil {
			report.Failed = append(report.Failed, Failure{Record: r, Err: err})
			continue
		}
		report.Undone++
		done = append(done, r.ID)
	}
	slices.Reverse(report.Elsewhere)
	report.ForgetErr = j.Forget(done...)
	return report
}

func undoOne(registry Registry, r Record) ([]Left, error) {
	undo, ok := registry[r.Kind]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknownKind, r.Kind)
	}
	return undo(r)
}

package journaltest

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

// ErrCrash is what a [Failing] journal fails with.
var ErrCrash = errors.New("crash")

// Open makes the state directory if it is not there and opens its journal, which is closed at the end of the test.
func Open(t *testing.T, state string) *journal.Journal {
	t.Helper()
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// Undo undoes a journal and closes it, as at the end of a daemon or at the start after a crash, and returns what was
// left. Failures, and records that are still pending, fail the test.
func Undo(t *testing.T, j *journal.Journal, undoers ...journal.Registry) []journal.Left {
	t.Helper()
	report := j.Undo(journal.Merge(undoers...))
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	if n := len(j.Pending()); n > 0 {
		t.Errorf("%d records pending after undoing", n)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return report.Left
}

// Failing is a journal that fails one call, as if the process had died around it.
type Failing struct {
	*journal.Journal
	Calls  int  // so far
	FailAt int  // the number of the call that fails, from 1
	After  bool // the call fails after it was done, not before
}

func (f *Failing) call(do func() error) error {
	f.Calls++
	switch {
	case f.Calls != f.FailAt:
		return do()
	case !f.After:
		return ErrCrash
	}
	return errors.Join(do(), ErrCrash)
}

// EachCall lets run do the same with one failing journal after the other: the first call fails, the second, and so on,
// each before and after it was done, until no more are made, which must be at least that many. run gives the journal to
// fail, sees to it that nothing stays of what it did, and returns what went wrong, which must be [ErrCrash].
func EachCall(t *testing.T, least int, run func(f *Failing, what string) error) {
	t.Helper()
	for _, after := range []bool{false, true} {
		err := ErrCrash
		for n := 1; err != nil && !t.Failed(); n++ {
			f := &Failing{FailAt: n, After: after}
			if err = run(f, fmt.Sprintf("journal call %d, after %v", n, after)); err != nil && !errors.Is(err, ErrCrash) {
				t.Fatal(err)
			}
			if err == nil && f.Calls < least {
				t.Errorf("only %d journal calls", f.Calls)
			}
		}
	}
}

// Record implements [journal.Recorder].
func (f *Failing) Record(changes ...journal.Change) (ids []journal.ID, err error) {
	err = f.call(func() (err error) { ids, err = f.Journal.Record(changes...); return err })
	return ids, err
}

// Forget implements [journal.Recorder].
func (f *Failing) Forget(ids ...journal.ID) error {
	return f.call(func() error { return f.Journal.Forget(ids...) })
}

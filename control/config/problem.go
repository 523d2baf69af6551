package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxProblems bounds how many problems one report lists; a file with more is not the file the reader meant.
const maxProblems = 100

// Problem is one thing that is wrong with the configuration, with its place and the way out.
type Problem struct {
	// File is the path as given to [Load] or the name given to [Parse]; empty for a flag or a built value.
	File string
	// Line counts from 1; 0 when the problem has no line (a flag, an unreadable file).
	Line int
	// Column counts bytes from 1; 0 when unknown.
	Column int
	// Key is the dotted key ("node.mtu") or the flag ("--network"); empty when the whole file is meant.
	Key string
	// Message says what is wrong, Remedy what to do about it. Both are lower case without a final period.
	Message, Remedy string
}

// String gives the problem as "file:line:key: what is wrong; remedy", leaving out the parts that are empty.
func (p Problem) String() string {
	place := make([]string, 0, 3)
	if p.File != "" {
		place = append(place, p.File)
	}
	if p.Line > 0 {
		place = append(place, strconv.Itoa(p.Line))
	}
	if p.Key != "" {
		place = append(place, p.Key)
	}
	text := p.Message
	if p.Remedy != "" {
		text += "; " + p.Remedy
	}
	if len(place) == 0 {
		return text
	}
	return strings.Join(place, ":") + ": " + text
}

// Error is the refusal of a configuration: all its problems in the order of the file, flags last.
type Error struct {
	// Problems holds at least one and at most 100 entries.
	Problems []Problem
	// Omitted counts problems beyond those listed; the search ends early in a file that is all wrong.
	Omitted int

	cause error
}

// Error gives one line for each problem.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
	}
	if e.Omitted > 0 {
		fmt.Fprintf(&b, "\nand at least %d more problems", e.Omitted)
	}
	return b.String()
}

// Unwrap gives the operating system's error when the file could not be read, so that a caller can ask
// errors.Is(err, fs.ErrNotExist); nil otherwise.
func (e *Error) Unwrap() error { return e.cause }

// AsError turns a list of problems, as [Config.Check] returns it, into one error; nil for an empty list.
func AsError(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return newError(problems, nil)
}

func newError(problems []Problem, cause error) *Error {
	list := sortProblems(problems)
	e := &Error{Problems: list, cause: cause}
	if len(list) > maxProblems {
		e.Problems, e.Omitted = list[:maxProblems:maxProblems], len(list)-maxProblems
	}
	return e
}

// sortProblems orders by place, problems of the file before those of flags, and drops repetitions.
func sortProblems(problems []Problem) []Problem {
	list := slices.Clone(problems)
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(
			-cmp.Compare(min(len(a.File), 1), min(len(b.File), 1)),
			cmp.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Key, b.Key),
			cmp.Compare(a.Message, b.Message),
		)
	})
	return slices.Compact(list)
}

// Problems gives the list inside an error of this package, or nil when err is none.
func Problems(err error) []Problem {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Problems
	}
	return nil
}

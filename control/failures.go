package control

import "strings"

// failures are the errors of several attempts at the same thing, on one line for people.
type failures []error

// Error joins the errors with semicolons.
func (f failures) Error() string {
	if len(f) == 0 {
		return "nothing to try"
	}
	texts := make([]string, len(f))
	for i, err := range f {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap lets errors.Is and errors.As look at each.
func (f failures) Unwrap() []error { return f }

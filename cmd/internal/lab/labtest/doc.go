// Package labtest builds networks of package lab for tests: whatever fails, fails the test; whatever
// was made is taken away at its end; whatever a link drew by chance can be drawn again from the seed in
// the log.
package labtest

//go:build !linux

package daemon

// bootNanos is nil for the clock of package time.
func bootNanos() func() int64 { return nil }

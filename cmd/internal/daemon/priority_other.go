//go:build !linux

package daemon

// setNice leaves the priority to the system.
func setNice(int) error { return nil }

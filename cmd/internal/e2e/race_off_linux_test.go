//go:build !race

package e2e

// raceDetector says that this test binary has the race detector, so the daemons get it too.
const raceDetector = false

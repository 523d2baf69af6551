package control

import (
	"fmt"
	"runtime/debug"
)

// recovered runs the work of one goroutine and turns a panic into its error, so that one peer's bytes end one session and
// not the process.
func recovered(work func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return work()
}

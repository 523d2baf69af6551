package lab

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// errFunctionExited reports a function that ended its goroutine (runtime.Goexit, testing's FailNow) and
// so returned nothing.
var errFunctionExited = errors.New("the function ended its goroutine instead of returning")

// onFreshThread runs f on an operating system thread that is destroyed afterwards, so f may change what
// belongs to a thread (namespace, timer slack) without a way back. The process's first thread is never
// used: it cannot be destroyed, and /proc/self shows the namespace of that one.
func onFreshThread(f func() error) error {
	result := make(chan error, 1)
	go runAndDiscardThread(f, result)
	return <-result
}

// runAndDiscardThread is the body of a goroutine: it ends while still locked, whereupon the runtime
// destroys the thread.
func runAndDiscardThread(f func() error, result chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// While this goroutine holds the first thread, another one has to get another thread.
		done := make(chan error, 1)
		go runAndDiscardThread(f, done)
		err := <-done
		runtime.UnlockOSThread()
		result <- err
		return
	}
	err := errFunctionExited
	defer func() { result <- err }()
	err = f()
}

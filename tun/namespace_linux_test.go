package tun

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// inNetwork runs f on a thread with an empty network of its own, which ends with it.
func inNetwork(t testing.TB, f func() error) {
	t.Helper()
	onThread(t, func() error {
		if err := unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// errRights says that the process may not make namespaces, which only root may everywhere.
var errRights = errors.New("not permitted to make a namespace")

func unshare(flags int) error {
	err := unix.Unshare(flags)
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		return errRights
	}
	if err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	return nil
}

// onThread runs f on an OS thread that nothing else uses, before or after.
func onThread(t testing.TB, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("panic: %v", p)
			}
		}()
		done <- f()
	}()
	switch err := <-done; {
	case errors.Is(err, errRights):
		t.Skipf("%v: run as root", err)
	case err != nil:
		t.Fatal(err)
	}
}

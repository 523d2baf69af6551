//go:build !unix

package main

import (
	"context"
	"errors"
	"io"
)

// detachUp is for systems with sessions and descriptors to inherit; elsewhere the service manager does this.
func detachUp(context.Context, io.Writer, []string, string, string) error {
	return errors.New("--detach is not supported on this system: run `aetherd up` in a window of its own")
}

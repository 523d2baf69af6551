//go:build !linux

package main

import (
	"context"
	"errors"
	"io"
)

// runBench needs network namespaces.
func runBench(context.Context, io.Writer, io.Writer, benchOptions) error {
	return errors.New("bench needs the network namespaces of Linux: run it on a Linux machine or in a Linux virtual machine")
}

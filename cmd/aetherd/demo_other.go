//go:build !linux

package main

import (
	"context"
	"errors"
	"io"
)

// runDemo needs network namespaces.
func runDemo(context.Context, io.Writer, io.Writer, demoOptions) error {
	return errors.New("demo needs the network namespaces of Linux: run it on a Linux machine or in a Linux virtual machine")
}

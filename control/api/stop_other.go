//go:build !linux

package api

import (
	"context"
	"os"
)

// watchExit sees no processes here.
func (c *Client) watchExit(context.Context) (*os.File, error) { return nil, nil }

// awaitExit is never called without a process.
func awaitExit(context.Context, *os.File) error { return nil }

//go:build !unix

package api

import (
	"net"
	"os"
	"path/filepath"
)

// listenPrivate relies on the permissions of the state directory, since the system has no modes for sockets.
func listenPrivate(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}

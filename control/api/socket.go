package api

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
)

const (
	// RunDir holds the socket of the daemon with the default state directory.
	RunDir = "/run/aetherd"
	// DefaultState is the state directory of the system's own daemon.
	DefaultState = "/var/lib/aetherd"
	// maxSocketPath is what fits into sockaddr_un (104 bytes) on every system we build for, less the name of the draft.
	maxSocketPath = 90
)

// SocketPath is where the daemon with the given state directory listens: under /run for the default one, in the state
// directory otherwise, and under /run again where that path is too long for a socket.
func SocketPath(state string) string {
	if absolute, err := filepath.Abs(state); err == nil {
		state = absolute
	}
	if state == DefaultState {
		return filepath.Join(RunDir, "aetherd.sock")
	}
	path := filepath.Join(state, "aetherd.sock")
	if len(path) <= maxSocketPath {
		return path
	}
	sum := sha256.Sum256([]byte(state))
	return filepath.Join(RunDir, hex.EncodeToString(sum[:8])+".sock")
}

package config

import (
	"os"
	"path/filepath"
)

// DefaultPath is the configuration file that is read when --config names none.
func DefaultPath() string { return filepath.Join(programData(), "AetherTunnel", "aetherd.toml") }

// DefaultStateDir is the directory for keys and data when nothing else is configured.
func DefaultStateDir() string { return filepath.Join(programData(), "AetherTunnel", "state") }

// programData falls back to the documented location because services may start with an empty environment.
func programData() string {
	if dir := os.Getenv("ProgramData"); filepath.IsAbs(dir) {
		return dir
	}
	return `C:\ProgramData`
}

//go:build !windows

package config

// DefaultPath is the configuration file that is read when --config names none.
func DefaultPath() string { return "/etc/aetherd/aetherd.toml" }

// DefaultStateDir is the directory for keys and data when nothing else is configured.
func DefaultStateDir() string { return "/var/lib/aetherd" }

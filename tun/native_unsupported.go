//go:build !linux && !windows && !darwin

package tun

import "runtime"

// Create reports that this operating system has no driver here.
func (c Config) Create() (Device, error) {
	return nil, &Error{Name: c.Name, Err: ErrNoDriver, Remedy: "aetherd has no TUN driver for " + runtime.GOOS}
}

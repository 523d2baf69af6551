//go:build !linux && !windows && !darwin

package tun

import "runtime"

// Create reports that this operating system has no driver here.
func Create(name string, _ int) (Device, error) {
	return nil, &Error{Name: name, Err: ErrNoDriver, Remedy: "aetherd has no TUN driver for " + runtime.GOOS}
}

//go:build windows || darwin

package tun

import (
	"errors"
	"os"
)

func checkFree(string) error { return nil }

func createError(name string, err error) error {
	e := &Error{Name: name, Err: err}
	if errors.Is(err, os.ErrPermission) {
		e.Err = ErrPermission
		e.Remedy = "run as administrator"
	}
	return e
}

func deviceGone(error) bool { return false }

// Offloads reports none: the driver moves single packets on this platform.
func (d *native) Offloads() Offloads { return Offloads{} }

//go:build windows || darwin

package tun

import (
	"errors"
	"os"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

func checkName(string) error { return nil }

func open(name string, mtu int) (wgtun.Device, error) { return wgtun.CreateTUN(name, mtu) }

func createError(name string, err error) error {
	e := &Error{Name: name, Err: err}
	if errors.Is(err, os.ErrPermission) {
		e.Err = ErrPermission
		e.Remedy = "run as administrator"
	}
	return e
}

// offloads reports none: the driver moves single packets.
func (Config) offloads(wgtun.Device, string) (Offloads, error) { return Offloads{}, nil }

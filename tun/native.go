//go:build linux || windows || darwin

package tun

import (
	"errors"
	"fmt"
	"os"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

// native is a kernel device behind wireguard's portable driver.
type native struct {
	dev  wgtun.Device
	name string
}

// Create makes a kernel TUN device with the given interface name and MTU (bytes). An empty name, or one
// ending in %d on Linux, lets the system choose. Errors are of type [*Error].
func Create(name string, mtu int) (Device, error) {
	if err := checkFree(name); err != nil {
		return nil, err
	}
	dev, err := wgtun.CreateTUN(name, mtu)
	if err != nil {
		return nil, createError(name, err)
	}
	real, err := dev.Name()
	if err != nil {
		return nil, errors.Join(createError(name, err), dev.Close())
	}
	d := &native{dev: dev, name: real}
	go d.drainEvents()
	return d, nil
}

// drainEvents empties the driver's event channel, which blocks its listener when nobody reads it. It ends
// when the device is closed, since the driver closes the channel then.
func (d *native) drainEvents() {
	for range d.dev.Events() { //nolint:revive // the events themselves are netmon's business
	}
}

func (d *native) Name() string   { return d.name }
func (d *native) BatchSize() int { return d.dev.BatchSize() }

func (d *native) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := d.dev.Read(bufs, sizes, offset)
	if err != nil {
		// A super-packet with more segments than we have buffers: what was read is good, the rest is lost.
		if errors.Is(err, wgtun.ErrTooManySegments) {
			return n, nil
		}
		return n, closedError("read", d.name, err)
	}
	return n, nil
}

func (d *native) Write(bufs [][]byte, offset int) error {
	if _, err := d.dev.Write(bufs, offset); err != nil {
		return closedError("write", d.name, err)
	}
	return nil
}

func (d *native) Close() error {
	if err := d.dev.Close(); err != nil {
		return fmt.Errorf("close TUN device %s: %w", d.name, err)
	}
	return nil
}

// closedError folds the different ways in which systems say "this device is gone" into ErrClosed.
func closedError(op, name string, err error) error {
	if errors.Is(err, os.ErrClosed) || deviceGone(err) {
		return ErrClosed
	}
	return fmt.Errorf("%s TUN device %s: %w", op, name, err)
}

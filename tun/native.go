//go:build linux || windows || darwin

package tun

import (
	"errors"
	"fmt"
	"os"
	"sync"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

// Bounds of the MTU in bytes: what the kernels take.
const minMTU, maxMTU = 68, 65535

// native is a kernel device behind wireguard's portable driver.
type native struct {
	dev      wgtun.Device
	queue    *queue
	name     string
	offloads Offloads

	drained  chan struct{} // closed when the driver's listeners have ended
	closing  sync.Once
	closeErr error // set by closing
}

// Create makes a kernel TUN device. Errors are of type [*Error].
func (c Config) Create() (Device, error) {
	if err := checkName(c.Name); err != nil {
		return nil, err
	}
	if c.MTU < minMTU || c.MTU > maxMTU {
		return nil, &Error{
			Name: c.Name, Err: fmt.Errorf("MTU of %d bytes", c.MTU),
			Remedy: fmt.Sprintf("use %d to %d", minMTU, maxMTU),
		}
	}
	dev, err := open(c.Name, c.MTU)
	if err != nil {
		return nil, createError(c.Name, err)
	}
	d := &native{dev: dev, drained: make(chan struct{})}
	go d.drainEvents()
	if err := d.configure(c); err != nil {
		e := createError(c.Name, err)
		if err := d.Close(); err != nil {
			return nil, errors.Join(e, err)
		}
		return nil, e
	}
	return d, nil
}

// configure settles the offloads and makes the queue.
func (d *native) configure(c Config) (err error) {
	if d.name, err = d.dev.Name(); err != nil {
		return err
	}
	if d.offloads, err = c.offloads(d.dev, d.name); err != nil {
		return err
	}
	d.queue, err = newQueue(d.dev, d.name, d.offloads)
	return err
}

// drainEvents empties the driver's event channel, which blocks its listeners when nobody reads it. The driver closes
// the channel when the device is closed. The events themselves are the business of those who watch the host.
func (d *native) drainEvents() {
	defer close(d.drained)
	for range d.dev.Events() { // nothing is left to do with them
	}
}

func (d *native) Name() string       { return d.name }
func (d *native) Offloads() Offloads { return d.offloads }

func (d *native) ReadPackets(packets []Packet, budgetBytes int) (int, error) {
	return d.queue.readPackets(packets, budgetBytes, true)
}

func (d *native) TryReadPackets(packets []Packet, budgetBytes int) (int, error) {
	return d.queue.readPackets(packets, budgetBytes, false)
}

func (d *native) WritePacket(pieces [][]byte, o Offload) error { return d.queue.writePacket(pieces, o) }

func (d *native) Close() error {
	d.closing.Do(func() {
		// The driver says "already closed" when its listener has noticed the end before it is told of it.
		if err := d.dev.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			d.closeErr = fmt.Errorf("close TUN device %s: %w", d.name, err)
			return
		}
		<-d.drained
	})
	return d.closeErr
}

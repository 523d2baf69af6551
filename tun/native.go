//go:build linux || windows || darwin

package tun

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

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

	closed   atomic.Bool   // set before the driver is closed
	drained  chan struct{} // closed when the driver's listeners have ended
	closing  sync.Once
	closeErr error // set by closing
}

// Create makes a kernel TUN device with the given interface name and MTU, for Device.Read; see [Config].
func Create(name string, mtu int) (Device, error) {
	return Config{Name: name, MTU: mtu, cutByDriver: true}.Create()
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
func (d *native) BatchSize() int     { return d.dev.BatchSize() }
func (d *native) Offloads() Offloads { return d.offloads }

func (d *native) ReadPackets(packets []Packet, budgetBytes int) (int, error) {
	return d.queue.readPackets(packets, budgetBytes, true)
}

func (d *native) TryReadPackets(packets []Packet, budgetBytes int) (int, error) {
	return d.queue.readPackets(packets, budgetBytes, false)
}

func (d *native) WritePacket(pieces [][]byte, o Offload) error { return d.queue.writePacket(pieces, o) }

func (d *native) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		n, err := d.dev.Read(bufs, sizes, offset)
		switch {
		case err == nil:
			return n, nil
		case d.closed.Load(), errors.Is(err, os.ErrClosed), deviceGone(d.dev, err):
			return 0, ErrClosed
		}
		switch causeOf(err) {
		case causeDevice:
			return 0, fmt.Errorf("read TUN device %s: %w", d.name, err)
		case causePacket:
			return n, fmt.Errorf("read TUN device %s: %w: %w", d.name, ErrUnreadable, err)
		case causeListener: // mentioned once; no packet depends on it
		}
	}
}

// cause is what an error of the driver's Read is about.
type cause int

const (
	causeDevice   cause = iota // nothing can be read any more
	causePacket                // something the host handed over was lost
	causeListener              // the driver no longer hears of link changes
)

func (d *native) Write(bufs [][]byte, offset int) error {
	_, err := d.dev.Write(bufs, offset)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrClosed), deviceGone(d.dev, err):
		return ErrClosed
	}
	return &RefusedError{Writes: leaves(err), Err: err}
}

// leaves counts the errors that were joined into err.
func leaves(err error) int {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return 1
	}
	n := 0
	for _, e := range joined.Unwrap() {
		n += leaves(e)
	}
	return n
}

func (d *native) Close() error {
	d.closing.Do(func() {
		d.closed.Store(true)
		// The driver says "already closed" when its listener has noticed the end before it is told of it.
		if err := d.dev.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			d.closeErr = fmt.Errorf("close TUN device %s: %w", d.name, err)
			return
		}
		<-d.drained
	})
	return d.closeErr
}

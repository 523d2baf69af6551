// Package tun is the virtual NIC: a layer-3 device whose packets the dataplane reads and writes in batches.
//
// [Create] makes a kernel device (Linux TUN with virtio offloads, Windows Wintun, macOS utun);
// [NewMemory] makes one without a kernel, for tests and for parts that live in user space.
package tun

import (
	"errors"
	"fmt"
)

// Headroom is the number of free bytes that a caller leaves before each packet it hands to Read or
// Write. Linux puts the virtio header there; 16 keeps packets aligned.
const Headroom = 16

// MaxPacketBytes is the longest packet a Device reads or writes after segmentation.
const MaxPacketBytes = 65535

var (
	// ErrNoDriver means that the operating system has no TUN driver (on Linux: no /dev/net/tun).
	ErrNoDriver = errors.New("no TUN driver")
	// ErrPermission means that the process may not create network interfaces.
	ErrPermission = errors.New("not permitted to create a network interface")
	// ErrNameInUse means that an interface of that name exists already.
	ErrNameInUse = errors.New("interface name in use")
	// ErrClosed is what Read and Write return after Close, or after the device was deleted by someone else.
	ErrClosed = errors.New("TUN device closed")
)

// Error says which device could not be made and what the user can do about it.
type Error struct {
	Name   string // interface name asked for
	Remedy string // what to do, a clause without a full stop
	Err    error  // one of the sentinels above, or the system's error
}

// Error gives the one line for the user: the thing, the reason, the remedy.
func (e *Error) Error() string {
	if e.Remedy == "" {
		return fmt.Sprintf("create TUN device %q: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("create TUN device %q: %v: %s", e.Name, e.Err, e.Remedy)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Device is a virtual NIC. Read has one caller at a time, and so has Write; Close may be called by
// anyone and makes both return [ErrClosed].
type Device interface {
	// Name is the interface name the system knows.
	Name() string
	// BatchSize is the number of buffers Read wants: one system call may yield that many packets.
	BatchSize() int
	// Read fills bufs[i][offset:offset+sizes[i]] with one IP packet each and returns how many.
	// offset is at least Headroom. Buffers must hold offset + the device's MTU.
	Read(bufs [][]byte, sizes []int, offset int) (int, error)
	// Write hands the packets bufs[i][offset:] to the host. It may change the bytes of bufs, headroom included.
	Write(bufs [][]byte, offset int) error
	// Offloads says what the device does for us, for status.
	Offloads() Offloads
	// Close removes the device.
	Close() error
}

// Offloads names the segmentation offloads that are on.
type Offloads struct {
	VirtioHeader bool `json:"virtio_header"` // super-packets with a virtio header
	TCP          bool `json:"tcp"`           // TCP segmentation, IPv4 and IPv6
	UDP          bool `json:"udp"`           // UDP segmentation (Linux 6.2)
}

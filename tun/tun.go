// Package tun is the virtual NIC: a layer-3 device whose packets the dataplane reads and writes in batches.
//
// [Create] makes a kernel device (Linux TUN with virtio offloads, Windows Wintun, macOS utun);
// [NewMemory] makes one without a kernel, for tests and for parts that live in user space.
package tun

// Headroom is the number of free bytes that a caller leaves before each packet it hands to Read or
// Write. Linux puts the virtio header there; 16 keeps packets aligned.
const Headroom = 16

// MaxPacketBytes is the longest packet a Device reads or writes.
const MaxPacketBytes = 65535

// Device is a virtual NIC. Read has one caller at a time, and so has Write; Close may be called by
// anyone and makes both return [ErrClosed].
type Device interface {
	// Name is the interface name the system knows.
	Name() string
	// BatchSize is the number of buffers Read wants: one system call may yield that many packets.
	BatchSize() int
	// Read fills bufs[i][offset:offset+sizes[i]] with one IP packet each and returns how many. offset is at least
	// Headroom. Every buffer holds offset + MaxPacketBytes, since the MTU may be changed by others at any time.
	// The packets that it returns count even if the error is ErrUnreadable, which is the one after which Read may
	// be called again.
	Read(bufs [][]byte, sizes []int, offset int) (int, error)
	// Write hands the packets bufs[i][offset:] to the host. It may change the bytes of bufs, headroom included, and
	// the elements, where a buffer has room for several packets joined. After a *RefusedError the device is still
	// good.
	Write(bufs [][]byte, offset int) error
	// Offloads says what the device does for us, for status.
	Offloads() Offloads
	// Close removes the device. Closing it again does nothing.
	Close() error
}

// Offloads names the segmentation offloads that are on.
type Offloads struct {
	VirtioHeader bool `json:"virtio_header"` // super-packets with a virtio header
	TCP          bool `json:"tcp"`           // TCP segmentation, IPv4 and IPv6
	UDP          bool `json:"udp"`           // UDP segmentation (Linux 6.2)
}

// Package tun is the virtual NIC: a layer-3 device whose packets the dataplane reads and writes whole, together with
// what is left to do to them: cut a super-packet into segments, complete a checksum.
//
// [Config.Create] makes a kernel device (Linux TUN with virtio offloads, Windows Wintun, macOS utun);
// [NewMemory] makes one without a kernel, for tests and for parts that live in user space.
package tun

const (
	// Headroom is the number of free bytes that a buffer has before the packet read into it. Linux puts the virtio
	// header into the last of them; the rest is for the reader's own headers.
	Headroom = 64
	// MaxPacketBytes is the longest packet a Device reads or writes, a super-packet too.
	MaxPacketBytes = 65535
	// MaxPieces is the highest number of pieces WritePacket takes.
	MaxPieces = 64
)

// Device is a virtual NIC. Reading has one caller at a time, and so has writing; Close may be called by
// anyone and makes both return [ErrClosed].
type Device interface {
	// Name is the interface name the system knows.
	Name() string

	// ReadPackets waits for one packet and takes those that wait behind it, until packets is full, or none is left,
	// or they have budgetBytes or more together (0: no such bound). It returns how many it has read.
	//
	// On call, packets[i].Data is a buffer of at least Headroom + MaxPacketBytes bytes, which the caller keeps hold
	// of: call it buf. On return, for each packet read, Data is buf[Headroom:Headroom+n] and Offload is set. The bytes
	// of buf before the packet are the caller's to use from then on. The Data of the other elements is as it was,
	// though their buffers may have been written to.
	//
	// The packets it returns count, whatever the error. ErrUnreadable stands for one lost packet, and reading goes on
	// after it. After any other error nothing can be read any more.
	ReadPackets(packets []Packet, budgetBytes int) (int, error)
	// TryReadPackets is ReadPackets for a caller that has other things to do: it returns 0 and no error when there is
	// no packet now. Where the system's driver can only wait (Windows, macOS) it always does.
	TryReadPackets(packets []Packet, budgetBytes int) (int, error)
	// WritePacket hands one packet to the host, given as up to MaxPieces pieces that follow each other, MaxPacketBytes
	// in all. With an Offload other than the zero value the first piece holds all headers. It only reads the pieces
	// and keeps none of them. After a *RefusedError or an ErrUnwritable the packet is lost and the
	// device still good.
	//
	// It has one caller at a time, since it keeps what it needs in the device: goroutines that share a device hold a
	// lock of theirs around it.
	WritePacket(pieces [][]byte, o Offload) error

	// Offloads says which kinds of [Offload] are read and may be written.
	Offloads() Offloads
	// Close removes the device. Closing it again does nothing.
	Close() error
}

// Offloads names the offloads that are on, which were settled when the device was made.
type Offloads struct {
	VirtioHeader bool `json:"virtio_header"` // super-packets and partial checksums, in both directions
	TCP          bool `json:"tcp"`           // TCP segmentation, IPv4 and IPv6
	UDP          bool `json:"udp"`           // UDP segmentation, IPv4 and IPv6 (Linux 6.2)

	// MaxSegments and MaxSuperPacketBytes bound the super-packets that the host hands over: it cuts longer ones
	// itself. 0: not known, or no super-packets.
	MaxSegments         int `json:"max_segments,omitzero"`
	MaxSuperPacketBytes int `json:"max_super_packet_bytes,omitzero"`
}

// Config says what kernel device to make.
type Config struct {
	// Name is the interface name; an empty one, or one with %d for a number on Linux, lets the system choose.
	Name string
	MTU  int // bytes

	// MaxSegments and MaxSuperPacketBytes bound the super-packets that the host shall hand over (gso_max_segs,
	// gso_max_size with the headers). A super-packet beyond them is cut by the host into single packets, not into
	// smaller super-packets, unless it is of a local TCP socket, which observes them. 0 leaves the host's choice.
	// Systems without super-packets ignore both.
	MaxSegments, MaxSuperPacketBytes int
}

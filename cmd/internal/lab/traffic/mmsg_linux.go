package traffic

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	bytes  uint32
}

// A batch is a number of UDP packets that enter or leave the kernel in one call. Everything the kernel
// is given lives on the heap as long as the batch does.
type batch struct {
	raw     syscall.RawConn
	headers []mmsghdr
	vectors []unix.Iovec
	names   []unix.RawSockaddrInet6 // of the peers, where the socket is not connected; wide enough for IPv4
	buffers [][]byte
}

// newBatch makes a batch of packets of at most some bytes for a socket.
func newBatch(conn *net.UDPConn, packets, bytes int, connected bool) (*batch, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	b := &batch{
		raw:     raw,
		headers: make([]mmsghdr, packets),
		vectors: make([]unix.Iovec, packets),
		names:   make([]unix.RawSockaddrInet6, packets),
		buffers: make([][]byte, packets),
	}
	for i := range b.headers {
		b.buffers[i] = make([]byte, bytes)
		b.vectors[i].Base = &b.buffers[i][0]
		b.vectors[i].SetLen(bytes)
		h := &b.headers[i].header
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
		if !connected {
			h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		}
	}
	return b, nil
}

// receive waits for packets and returns how many came; message returns each.
func (b *batch) receive() (int, error) {
	for i := range b.headers {
		b.vectors[i].SetLen(len(b.buffers[i]))
		if b.headers[i].header.Name != nil {
			b.headers[i].header.Namelen = unix.SizeofSockaddrInet6
		}
	}
	var n int
	var errno unix.Errno
	err := b.raw.Read(func(fd uintptr) bool {
		n, errno = b.call(unix.SYS_RECVMMSG, fd, 0, len(b.headers))
		return errno != unix.EAGAIN
	})
	return n, firstError(err, errno)
}

// message returns the bytes of a packet received.
func (b *batch) message(i int) []byte { return b.buffers[i][:b.headers[i].bytes] }

// answer makes the packet at place `to` the packet received at place `from`, addressed to its sender.
func (b *batch) answer(to, from int) {
	length := int(b.headers[from].bytes)
	if to != from {
		b.buffers[to], b.buffers[from] = b.buffers[from], b.buffers[to]
		b.vectors[to].Base, b.vectors[from].Base = b.vectors[from].Base, b.vectors[to].Base
		b.names[to] = b.names[from]
		b.headers[to].header.Namelen = b.headers[from].header.Namelen
	}
	b.vectors[to].SetLen(length)
}

// send sends packets of the batch, waiting while the socket is full, and returns how many of them were
// taken, from the first one on. With an error none was, and the first one is what the kernel refused.
func (b *batch) send(first, packets int) (int, error) {
	var n int
	var errno unix.Errno
	err := b.raw.Write(func(fd uintptr) bool {
		n, errno = b.call(unix.SYS_SENDMMSG, fd, first, packets)
		return errno != unix.EAGAIN
	})
	return n, firstError(err, errno)
}

func (b *batch) call(trap, fd uintptr, first, packets int) (int, unix.Errno) {
	for {
		n, _, errno := unix.Syscall6(trap, fd, uintptr(unsafe.Pointer(&b.headers[first])), uintptr(packets),
			unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		runtime.KeepAlive(b)
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

func firstError(err error, errno unix.Errno) error {
	if err == nil && errno != 0 {
		return errno
	}
	return err
}

// socketDrops returns how many packets a socket has dropped because its buffer was full (SO_MEMINFO,
// SK_MEMINFO_DROPS).
func socketDrops(conn *net.UDPConn) (uint32, error) {
	const drops = 8
	var info [drops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = onDescriptor(raw, func(fd int) error {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return fmt.Errorf("read SO_MEMINFO: %w", errno)
		}
		if size < uint32(unsafe.Sizeof(info)) {
			return errors.New("SO_MEMINFO has no drops")
		}
		return nil
	})
	return info[drops], err
}

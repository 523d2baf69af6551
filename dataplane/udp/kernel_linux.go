package udp

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel is the system calls that move datagrams. What they are given lives on the heap. Tests make them fail.
type kernel interface {
	// recvmmsg fills hs from the front and returns how many; flags are MSG_ ones.
	recvmmsg(fd int, hs []mmsghdr, flags int) (int, syscall.Errno)
	sendmmsg(fd int, hs []mmsghdr, flags int) (int, syscall.Errno)
	sendmsg(fd int, h *unix.Msghdr, flags int) syscall.Errno
	poll(fds []unix.PollFd) syscall.Errno
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr

	bytes uint32
}

// linux is the kernel itself.
type linux struct{}

func (linux) recvmmsg(fd int, hs []mmsghdr, flags int) (int, syscall.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(hs))),
		uintptr(len(hs)), uintptr(flags), 0, 0)
	return int(n), errno
}

func (linux) sendmmsg(fd int, hs []mmsghdr, flags int) (int, syscall.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(hs))),
		uintptr(len(hs)), uintptr(flags), 0, 0)
	return int(n), errno
}

func (linux) sendmsg(fd int, h *unix.Msghdr, flags int) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(h)), uintptr(flags))
	return errno
}

func (linux) poll(fds []unix.PollFd) syscall.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(unsafe.SliceData(fds))), uintptr(len(fds)),
		0, 0, 0, 0)
	return errno
}

// probe reports what of the batch calls the kernel lacks, or a sandbox forbids. Without a descriptor a call that exists
// fails with EBADF.
func probe(k kernel) error {
	if _, errno := k.recvmmsg(-1, nil, unix.MSG_WAITFORONE); errno != unix.EBADF {
		return fmt.Errorf("recvmmsg: %w", errno)
	}
	if _, errno := k.sendmmsg(-1, nil, unix.MSG_DONTWAIT); errno != unix.EBADF {
		return fmt.Errorf("sendmmsg: %w", errno)
	}
	return nil
}

package udp

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel is the system calls that move datagrams. What they are given lives on the heap. Tests make them fail.
type kernel interface {
	// recvmmsg fills hs from the front and returns how many.
	recvmmsg(fd int, hs []mmsghdr) (int, syscall.Errno)
	sendmmsg(fd int, hs []mmsghdr) (int, syscall.Errno)
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr

	bytes uint32
}

// linux is the kernel itself. Its calls do not wait, and do not tell Go's scheduler that they are under way, as nobody
// would gain by it: on a process that was asleep that wakes up the runtime's monitor thread for every packet.
type linux struct{}

func (linux) recvmmsg(fd int, hs []mmsghdr) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(hs))),
		uintptr(len(hs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func (linux) sendmmsg(fd int, hs []mmsghdr) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(hs))),
		uintptr(len(hs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// probe reports what of the batch calls the kernel lacks, or a sandbox forbids. Without a descriptor a call that exists
// fails with EBADF.
func probe(k kernel) error {
	if _, errno := k.recvmmsg(-1, nil); errno != unix.EBADF {
		return fmt.Errorf("recvmmsg: %w", errno)
	}
	if _, errno := k.sendmmsg(-1, nil); errno != unix.EBADF {
		return fmt.Errorf("sendmmsg: %w", errno)
	}
	return nil
}

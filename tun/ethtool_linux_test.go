package tun

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolValue asks for one of the features that the old ethtool commands know.
func ethtoolValue(fd int, name string, command uint32) (uint32, error) {
	value := struct{ command, data uint32 }{command: command}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	request.data = unsafe.Pointer(&value)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return 0, errno
	}
	return value.data, nil
}

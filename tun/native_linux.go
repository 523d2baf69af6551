package tun

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

const cloneDevice = "/dev/net/tun"

// checkFree refuses names that exist or that the kernel would refuse, before anything is changed. Attaching to an existing
// interface would take over somebody else's.
func checkFree(name string) error {
	if len(name) >= unix.IFNAMSIZ {
		return &Error{
			Name: name, Err: errors.New("interface name too long"),
			Remedy: fmt.Sprintf("use at most %d characters", unix.IFNAMSIZ-1),
		}
	}
	if _, err := net.InterfaceByName(name); name != "" && err == nil {
		return &Error{Name: name, Err: ErrNameInUse, Remedy: "choose another with --tun NAME, or stop its owner"}
	}
	return nil
}

// createError names the cause of a failed TUNSETIFF or open.
func createError(name string, err error) error {
	e := &Error{Name: name, Err: err}
	_, statErr := os.Stat(cloneDevice)
	switch {
	case errors.Is(statErr, os.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		e.Err = ErrNoDriver
		e.Remedy = "load it with `modprobe tun`; in a container, pass the device with `--device /dev/net/tun`"
	case errors.Is(err, os.ErrPermission):
		e.Err = ErrPermission
		e.Remedy = "run with sudo, or give the process CAP_NET_ADMIN and access to " + cloneDevice
	case errors.Is(err, unix.EBUSY):
		e.Err = ErrNameInUse
		e.Remedy = "choose another with --tun NAME, or stop its owner"
	}
	return e
}

func deviceGone(err error) bool {
	return errors.Is(err, unix.EBADFD) || errors.Is(err, unix.ENODEV)
}

// Offloads reads the flags of the queue, since UDP segmentation depends on the kernel.
func (d *native) Offloads() Offloads {
	o := Offloads{}
	raw, err := d.dev.File().SyscallConn()
	if err != nil {
		return o
	}
	controlErr := raw.Control(func(fd uintptr) {
		ifr, err := unix.NewIfreq(d.name)
		if err != nil {
			return
		}
		if unix.IoctlIfreq(int(fd), unix.TUNGETIFF, ifr) != nil {
			return
		}
		o.VirtioHeader = ifr.Uint16()&unix.IFF_VNET_HDR != 0
		// The driver insists on TCP offloads with a virtio header and asks for UDP where the kernel has it; asking
		// again for the same set tells whether it was granted and changes nothing.
		const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
		o.TCP = o.VirtioHeader
		o.UDP = o.VirtioHeader &&
			unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil
	})
	if controlErr != nil {
		return Offloads{}
	}
	return o
}

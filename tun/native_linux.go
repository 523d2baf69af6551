package tun

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"
)

const cloneDevice = "/dev/net/tun"

// checkName refuses names that the kernel would refuse with nothing but "invalid argument".
func checkName(name string) error {
	refuse := func(reason, remedy string) error {
		return &Error{Name: name, Err: errors.New(reason), Remedy: remedy}
	}
	template := strings.Replace(name, "%d", "", 1)
	switch {
	case len(name) >= unix.IFNAMSIZ:
		return refuse("interface name too long", fmt.Sprintf("use at most %d characters", unix.IFNAMSIZ-1))
	case name == ".", name == "..", strings.ContainsAny(name, "/: \t\n\v\f\r\x00"):
		return refuse("not an interface name", "use letters, digits, dots, dashes and underscores")
	case strings.Contains(template, "%"):
		return refuse("not an interface name", "use % only once, as %d, where the system shall put a number")
	}
	return nil
}

// open makes the device.
func open(name string, mtu int) (wgtun.Device, error) { return openAs(name, mtu, unix.IFF_VNET_HDR) }

// openAs is open for a queue with the given flags beside those that all have.
func openAs(name string, mtu int, flags uint16) (wgtun.Device, error) {
	fd, err := descriptor(name, flags)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), cloneDevice)
	dev, err := wgtun.CreateTUNFromFile(file, mtu)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return dev, nil
}

// descriptor makes a device and gives its queue, which does not block: else Close would not end a read in Go's poller.
// It asks for a new device: without that the kernel would hand out an existing persistent one of the same name, which is
// somebody else's.
func descriptor(name string, flags uint16) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_TUN_EXCL | flags)
	fd, err := unix.Open(cloneDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", cloneDevice, err)
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// createError names the cause of a failed open.
func createError(name string, err error) error {
	e := &Error{Name: name, Err: err}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		e.Err = ErrNoDriver
		e.Remedy = "load it with `modprobe tun`; in a container, pass the device with `--device " + cloneDevice + "`"
	case errors.Is(err, os.ErrPermission):
		e.Err = ErrPermission
		e.Remedy = "run with sudo, or give the process CAP_NET_ADMIN and access to " + cloneDevice
	case errors.Is(err, unix.EBUSY):
		e.Err = ErrNameInUse
		e.Remedy = "choose another with --tun NAME, or stop its owner"
	}
	return e
}

package tun

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"
)

// offloads asks the kernel for those we want and finds out which are on.
func (c Config) offloads(dev wgtun.Device, name string) (Offloads, error) {
	o := Offloads{}
	raw, err := dev.File().SyscallConn()
	if err != nil {
		return o, err
	}
	if err := raw.Control(func(fd uintptr) {
		request, err := unix.NewIfreq(name)
		if err != nil || unix.IoctlIfreq(int(fd), unix.TUNGETIFF, request) != nil {
			return
		}
		o.VirtioHeader = request.Uint16()&unix.IFF_VNET_HDR != 0
		if !o.VirtioHeader {
			return
		}
		// The driver has asked for less: its own reader cannot cut a super-packet that carries CWR.
		const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
		o.UDP = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil
		o.TCP = o.UDP || unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, tcp) == nil
	}); err != nil {
		return Offloads{}, err
	}
	if !o.TCP {
		return o, nil
	}
	if err := c.limit(name); err != nil {
		return Offloads{}, err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return Offloads{}, fmt.Errorf("look up the device: %w", err)
	}
	o.MaxSegments, o.MaxSuperPacketBytes = int(link.Attrs().GSOMaxSegs), int(link.Attrs().GSOMaxSize)
	return o, nil
}

// limit sets the bounds of super-packets that are asked for.
func (c Config) limit(name string) error {
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if c.MaxSegments != 0 {
		if err := netlink.LinkSetGSOMaxSegs(link, c.MaxSegments); err != nil {
			return fmt.Errorf("bound super-packets to %d segments: %w", c.MaxSegments, err)
		}
	}
	if c.MaxSuperPacketBytes != 0 {
		if err := netlink.LinkSetGSOMaxSize(link, c.MaxSuperPacketBytes); err != nil {
			return fmt.Errorf("bound super-packets to %d bytes: %w", c.MaxSuperPacketBytes, err)
		}
	}
	return nil
}

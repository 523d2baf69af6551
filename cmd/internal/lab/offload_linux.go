package lab

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Offloads are what an interface does in place of the kernel. A veth with all of them passes
// super-packets of up to 64 KiB with unfinished checksums from end to end; one without any passes what
// a wire would.
type Offloads struct {
	TxChecksum bool // checksums are left to the interface
	TSO        bool // TCP segments are cut by the interface; needs TxChecksum
	USO        bool // UDP datagrams are cut by the interface (UDP_SEGMENT)
	GSO        bool // segments are cut as late as possible
	GRO        bool // received segments are joined
}

// The kernel's names of features, by the offload they belong to (net/ethtool/common.c).
func (o *Offloads) features() map[string]*bool {
	return map[string]*bool{
		"tx-checksum-ip-generic":       &o.TxChecksum,
		"tx-tcp-segmentation":          &o.TSO,
		"tx-tcp-ecn-segmentation":      &o.TSO,
		"tx-tcp-mangleid-segmentation": &o.TSO,
		"tx-tcp6-segmentation":         &o.TSO,
		"tx-udp-segmentation":          &o.USO,
		"tx-generic-segmentation":      &o.GSO,
		"rx-gro":                       &o.GRO,
	}
}

// SetOffloads switches the offloads of the interface on or off, all at once. One that does not become
// as wanted, because the interface cannot, is an error.
func (i Interface) SetOffloads(want Offloads) error {
	return i.onLink("set offloads of", func(_ *netlink.Handle, l netlink.Link) error {
		return i.Namespace.Do(func() error {
			if err := setFeatures(l.Attrs().Index, want); err != nil {
				return err
			}
			got, err := readFeatures(l.Attrs().Index)
			if err == nil && got != want {
				err = fmt.Errorf("got %+v, want %+v", got, want)
			}
			return err
		})
	})
}

// Offloads returns the offloads of the interface that are on.
func (i Interface) Offloads() (Offloads, error) {
	var got Offloads
	err := i.onLink("read offloads of", func(_ *netlink.Handle, l netlink.Link) error {
		return i.Namespace.Do(func() error {
			var err error
			got, err = readFeatures(l.Attrs().Index)
			return err
		})
	})
	return got, err
}

// ethtoolRequest begins a request of the kernel's ethtool netlink family for an interface
// (Documentation/networking/ethtool-netlink.rst), to be executed on a thread inside the namespace.
func ethtoolRequest(command uint8, flags, index int) (*nl.NetlinkRequest, error) {
	family, err := netlink.GenlFamilyGet("ethtool")
	if err != nil {
		return nil, fmt.Errorf("find ethtool netlink: %w", err)
	}
	request := nl.NewNetlinkRequest(int(family.ID), flags)
	request.AddData(&nl.Genlmsg{Command: command, Version: 1})
	header := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_HEADER|unix.NLA_F_NESTED, nil)
	header.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_INDEX, nl.Uint32Attr(uint32(index)))
	request.AddData(header)
	return request, nil
}

func setFeatures(index int, want Offloads) error {
	request, err := ethtoolRequest(unix.ETHTOOL_MSG_FEATURES_SET, unix.NLM_F_ACK, index)
	if err != nil {
		return err
	}
	wanted := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_WANTED|unix.NLA_F_NESTED, nil)
	bits := wanted.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS|unix.NLA_F_NESTED, nil)
	for name, on := range want.features() {
		bit := bits.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS_BIT|unix.NLA_F_NESTED, nil)
		bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_NAME, nl.ZeroTerminated(name))
		if *on {
			bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_VALUE, nil)
		}
	}
	request.AddData(wanted)
	if _, err := request.Execute(unix.NETLINK_GENERIC, 0); err != nil {
		return fmt.Errorf("change features: %w", err)
	}
	return nil
}

func readFeatures(index int) (Offloads, error) {
	request, err := ethtoolRequest(unix.ETHTOOL_MSG_FEATURES_GET, 0, index)
	if err != nil {
		return Offloads{}, err
	}
	messages, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return Offloads{}, fmt.Errorf("read features: %w", err)
	}
	active, err := activeFeatures(messages)
	if err != nil {
		return Offloads{}, fmt.Errorf("read features: %w", err)
	}
	return offloadsOf(active), nil
}

// offloadsOf takes an offload for on if any of its features is: TSO of one kind alone still makes
// super-packets.
func offloadsOf(active map[string]bool) Offloads {
	var o Offloads
	for name, on := range o.features() {
		if active[name] {
			*on = true
		}
	}
	return o
}

// activeFeatures finds the names in the "active" bit set of a reply.
func activeFeatures(messages [][]byte) (map[string]bool, error) {
	if len(messages) != 1 || len(messages[0]) < nl.SizeofGenlmsg {
		return nil, errors.New("not one reply")
	}
	active := make(map[string]bool)
	path := []uint16{unix.ETHTOOL_A_FEATURES_ACTIVE, unix.ETHTOOL_A_BITSET_BITS, unix.ETHTOOL_A_BITSET_BITS_BIT}
	err := walkAttributes(messages[0][nl.SizeofGenlmsg:], path, func(bit []byte) error {
		return walkAttributes(bit, []uint16{unix.ETHTOOL_A_BITSET_BIT_NAME}, func(name []byte) error {
			active[nl.BytesToString(name)] = true
			return nil
		})
	})
	return active, err
}

// walkAttributes calls f with the value of every netlink attribute at a path of nested types
// (netlink(7)).
func walkAttributes(b []byte, path []uint16, f func(value []byte) error) error {
	const headerBytes, typeMask = 4, 0x3fff
	for len(b) >= headerBytes {
		length := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) & typeMask
		if length < headerBytes || length > len(b) {
			return fmt.Errorf("attribute of %d bytes in %d", length, len(b))
		}
		if kind == path[0] {
			var err error
			if len(path) == 1 {
				err = f(b[headerBytes:length])
			} else {
				err = walkAttributes(b[headerBytes:length], path[1:], f)
			}
			if err != nil {
				return err
			}
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return nil
}

package netmon

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	maxKnown     = 16384 // entries of each map of a view; beyond it every message counts as a change
	linkFlags    = unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP
	addressFlags = unix.IFA_F_TENTATIVE | unix.IFA_F_DEPRECATED | unix.IFA_F_DADFAILED
)

type linkState struct {
	name  string
	flags uint32
	mtu   uint32
}

type addressKey struct {
	index int32
	addr  netip.Addr
	bits  uint8
}

// view is what is known of the host, to tell a change from a repetition. One goroutine owns it.
type view struct {
	ignore    []string
	links     map[int32]linkState
	addresses map[addressKey]uint32
}

// snapshot reads the current links and addresses.
func snapshot(ignore []string) (*view, error) {
	v := &view{ignore: ignore, links: map[int32]linkState{}, addresses: map[addressKey]uint32{}}
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links[:min(len(links), maxKnown)] {
		a := l.Attrs()
		v.links[int32(a.Index)] = linkState{name: a.Name, flags: a.RawFlags & linkFlags, mtu: uint32(a.MTU)}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs[:min(len(addrs), maxKnown)] {
		addr, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		bits, _ := a.Mask.Size()
		key := addressKey{index: int32(a.LinkIndex), addr: addr.Unmap(), bits: uint8(bits)}
		v.addresses[key] = uint32(a.Flags) & addressFlags
	}
	return v, nil
}

// apply takes one datagram of messages into the view and returns what they change.
func (v *view) apply(datagram []byte) (Change, error) {
	list, err := messages(datagram)
	if err != nil {
		return Change{}, err
	}
	var out Change
	for _, m := range list {
		switch m.kind {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			out.Link = v.link(m) || out.Link
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			out.Address = v.address(m) || out.Address
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			out.Default = v.defaultRoute(m) || out.Default
		}
	}
	return out, nil
}

func (v *view) ours(index int32) bool { return slices.Contains(v.ignore, v.links[index].name) }

func (v *view) link(m message) bool {
	// AF_BRIDGE messages describe a port of a bridge, not the link.
	if len(m.data) < unix.SizeofIfInfomsg || m.data[0] != unix.AF_UNSPEC {
		return false
	}
	index := int32(binary.NativeEndian.Uint32(m.data[4:8]))
	now := linkState{flags: binary.NativeEndian.Uint32(m.data[8:12]) & linkFlags}
	for kind, value := range attributes(m.data[unix.SizeofIfInfomsg:]) {
		switch {
		case kind == unix.IFLA_IFNAME:
			now.name = strings.TrimRight(string(value), "\x00")
		case kind == unix.IFLA_MTU && len(value) >= 4:
			now.mtu = binary.NativeEndian.Uint32(value)
		}
	}
	before, known := v.links[index]
	ours := slices.Contains(v.ignore, now.name) || (known && v.ours(index))
	if m.kind == unix.RTM_DELLINK {
		delete(v.links, index)
		return !ours
	}
	if known || len(v.links) < maxKnown {
		v.links[index] = now
	}
	return !ours && (!known || before != now)
}

func (v *view) address(m message) bool {
	if len(m.data) < unix.SizeofIfAddrmsg {
		return false
	}
	key := addressKey{bits: m.data[1], index: int32(binary.NativeEndian.Uint32(m.data[4:8]))}
	flags := uint32(m.data[2])
	for kind, value := range attributes(m.data[unix.SizeofIfAddrmsg:]) {
		switch {
		case kind == unix.IFA_FLAGS && len(value) >= 4:
			flags = binary.NativeEndian.Uint32(value)
		case kind == unix.IFA_LOCAL, kind == unix.IFA_ADDRESS && !key.addr.IsValid():
			// On a point-to-point link IFA_ADDRESS is the peer and IFA_LOCAL ours.
			if addr, ok := netip.AddrFromSlice(value); ok {
				key.addr = addr
			}
		}
	}
	if v.ours(key.index) {
		return false
	}
	before, known := v.addresses[key]
	if m.kind == unix.RTM_DELADDR {
		delete(v.addresses, key)
		return true
	}
	flags &= addressFlags
	if known || len(v.addresses) < maxKnown {
		v.addresses[key] = flags
	}
	return !known || before != flags
}

// defaultRoute reports whether a message is about a default route, or one of the two halves of the address
// space by which VPNs override it, of another interface than ours.
func (v *view) defaultRoute(m message) bool {
	if len(m.data) < unix.SizeofRtMsg {
		return false
	}
	destinationBits, kind := m.data[1], m.data[7]
	flags := binary.NativeEndian.Uint32(m.data[8:12])
	if destinationBits > 1 || kind != unix.RTN_UNICAST || flags&unix.RTM_F_CLONED != 0 {
		return false
	}
	for attr, value := range attributes(m.data[unix.SizeofRtMsg:]) {
		if attr == unix.RTA_OIF && len(value) >= 4 {
			return !v.ours(int32(binary.NativeEndian.Uint32(value)))
		}
	}
	return true
}

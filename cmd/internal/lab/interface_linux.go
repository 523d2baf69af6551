package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An Interface is a place for a network interface: a namespace and a name there. It is a plain value;
// whether an interface of that name exists is up to [Veth], [Emulate] or the program under test.
type Interface struct {
	Namespace *Namespace
	Name      string
}

// Interface names an interface of the namespace, which need not exist yet.
func (n *Namespace) Interface(name string) Interface { return Interface{Namespace: n, Name: name} }

// String returns "namespace/name".
func (i Interface) String() string { return i.Namespace.name + "/" + i.Name }

// Veth joins two places by a cable: it makes the interfaces, sets their MTU and sets both up. The cable
// has no delay, no loss and offloads switched on; it goes when either end or its namespace goes.
func Veth(a, b Interface, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = a.Name, mtu
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: b.Name, PeerMTU: uint32(mtu)}
	err := b.Namespace.withFD(func(fd int) error {
		veth.PeerNamespace = netlink.NsFd(fd)
		return a.Namespace.handle.LinkAdd(veth)
	})
	if err != nil {
		return fmt.Errorf("join %v and %v: %w", a, b, err)
	}
	return errors.Join(a.SetUp(), b.SetUp())
}

// withFD runs f while the namespace's descriptor is kept from being closed.
func (n *Namespace) withFD(f func(fd int) error) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.fd < 0 {
		return ErrClosed
	}
	return f(n.fd)
}

// onLink looks the interface up and runs f on it; errors are wrapped with what was tried.
func (i Interface) onLink(verb string, f func(*netlink.Handle, netlink.Link) error) error {
	link, err := i.Namespace.handle.LinkByName(i.Name)
	if err == nil {
		err = f(i.Namespace.handle, link)
	}
	if err != nil {
		return fmt.Errorf("%s %v: %w", verb, i, err)
	}
	return nil
}

// SetUp sets the interface up.
func (i Interface) SetUp() error {
	return i.onLink("set up", func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetUp(l) })
}

// SetDown sets the interface down; its routes and IPv6 addresses go with that.
func (i Interface) SetDown() error {
	return i.onLink("set down", func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetDown(l) })
}

// SetMTU sets the largest IP packet, in bytes, that the interface sends.
func (i Interface) SetMTU(mtu int) error {
	return i.onLink("set MTU of", func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetMTU(l, mtu) })
}

// Delete removes the interface, and with it the other end of a veth.
func (i Interface) Delete() error {
	return i.onLink("delete", func(h *netlink.Handle, l netlink.Link) error { return h.LinkDel(l) })
}

// Addresses returns the addresses of the interface with their prefix lengths, IPv4 first; IPv6
// link-local ones are left out.
func (i Interface) Addresses() ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	err := i.onLink("list addresses of", func(h *netlink.Handle, l netlink.Link) error {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			addrs, err := h.AddrList(l, family)
			if err != nil {
				return err
			}
			for _, a := range addrs {
				prefix, err := prefixOf(a.IPNet)
				if err != nil {
					return err
				}
				if !prefix.Addr().IsLinkLocalUnicast() || prefix.Addr().Is4() {
					prefixes = append(prefixes, prefix)
				}
			}
		}
		return nil
	})
	return prefixes, err
}

// AddAddress gives the interface addresses, such as "192.0.2.1/24" or "2001:db8::1/64". IPv6 ones are
// usable at once.
func (i Interface) AddAddress(cidrs ...string) error {
	return i.eachAddress("add address to", cidrs, (*netlink.Handle).AddrAdd)
}

// RemoveAddress takes addresses away. Routes that depend on one go with it.
func (i Interface) RemoveAddress(cidrs ...string) error {
	return i.eachAddress("remove address of", cidrs, (*netlink.Handle).AddrDel)
}

func (i Interface) eachAddress(
	verb string, cidrs []string, f func(*netlink.Handle, netlink.Link, *netlink.Addr) error,
) error {
	return i.onLink(verb, func(h *netlink.Handle, l netlink.Link) error {
		for _, cidr := range cidrs {
			addr, err := netlink.ParseAddr(cidr)
			if err != nil {
				return err
			}
			if addr.IP.To4() == nil {
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := f(h, l, addr); err != nil {
				return fmt.Errorf("%s: %w", cidr, err)
			}
		}
		return nil
	})
}

// ChangeAddress replaces one address by another, as a network does that renumbers: sockets bound to the
// old one stay without it. Routes through the interface that the change takes away are put back,
// without their source address.
func (i Interface) ChangeAddress(oldCIDR, newCIDR string) error {
	before, err := i.routes()
	if err != nil {
		return err
	}
	if err := i.RemoveAddress(oldCIDR); err != nil {
		return err
	}
	if err := i.AddAddress(newCIDR); err != nil {
		return err
	}
	return i.onLink("restore routes of", func(h *netlink.Handle, _ netlink.Link) error {
		for _, route := range before {
			route.Src = nil
			if err := h.RouteReplace(&route); err != nil {
				return fmt.Errorf("%v: %w", route.Dst, err)
			}
		}
		return nil
	})
}

// routes returns the unicast routes of the interface which the kernel did not make by itself.
func (i Interface) routes() ([]netlink.Route, error) {
	var kept []netlink.Route
	err := i.onLink("list routes of", func(h *netlink.Handle, l netlink.Link) error {
		filter := &netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_UNSPEC}
		all, err := h.RouteListFiltered(unix.AF_UNSPEC, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, route := range all {
			if route.Type == unix.RTN_UNICAST && route.Protocol != unix.RTPROT_KERNEL {
				kept = append(kept, route)
			}
		}
		return nil
	})
	return kept, err
}

// AddRoute sends packets to a destination prefix out of the interface, without a next hop.
func (i Interface) AddRoute(prefix string) error {
	return i.onLink("add route through", func(h *netlink.Handle, l netlink.Link) error {
		_, destination, err := net.ParseCIDR(prefix)
		if err != nil {
			return err
		}
		return h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: destination, Scope: netlink.SCOPE_LINK})
	})
}

// AddRoute sends packets for a prefix to a next hop that the namespace reaches directly. The default
// routes are those for "0.0.0.0/0" and "::/0".
func (n *Namespace) AddRoute(prefix, via string) error {
	return n.changeRoute("add", prefix, via, n.handle.RouteAdd)
}

// RemoveRoute takes away what [Namespace.AddRoute] added.
func (n *Namespace) RemoveRoute(prefix, via string) error {
	return n.changeRoute("remove", prefix, via, n.handle.RouteDel)
}

func (n *Namespace) changeRoute(verb, prefix, via string, change func(*netlink.Route) error) error {
	_, destination, err := net.ParseCIDR(prefix)
	hop, hopErr := netip.ParseAddr(via)
	if err = errors.Join(err, hopErr); err == nil {
		err = change(&netlink.Route{Dst: destination, Gw: hop.AsSlice()})
	}
	if err != nil {
		return fmt.Errorf("%s route %s via %s in %s: %w", verb, prefix, via, n.name, err)
	}
	return nil
}

// Forward makes the namespace a router, for IPv4 and IPv6.
func (n *Namespace) Forward() error {
	return errors.Join(n.Sysctl("net.ipv4.ip_forward", "1"), n.Sysctl("net.ipv6.conf.all.forwarding", "1"))
}

// prefixOf turns the kernel's form of an address and mask into ours.
func prefixOf(n *net.IPNet) (netip.Prefix, error) {
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}, fmt.Errorf("not an address: %v", n)
	}
	return netip.PrefixFrom(addr.Unmap(), bits), nil
}

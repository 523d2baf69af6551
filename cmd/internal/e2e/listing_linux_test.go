package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A listing is everything that a daemon may change on a machine, one line each, sorted.
type listing []string

// String has one line for each.
func (l listing) String() string { return strings.Join(l, "\n") }

// diff shows what has come and gone, or nothing.
func (l listing) diff(after listing) string {
	var b strings.Builder
	for _, line := range l {
		if !slices.Contains(after, line) {
			fmt.Fprintf(&b, "  gone: %s\n", line)
		}
	}
	for _, line := range after {
		if !slices.Contains(l, line) {
			fmt.Fprintf(&b, "  left: %s\n", line)
		}
	}
	if b.Len() == 0 && len(l) != len(after) {
		fmt.Fprintf(&b, "  %d lines became %d: something is there twice\n", len(l), len(after))
	}
	return b.String()
}

// with returns the lines that have all the given parts.
func (l listing) with(parts ...string) listing {
	var out listing
	for _, line := range l {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			out = append(out, line)
		}
	}
	return out
}

// list reads the machine's listing.
func (m *machine) list() listing {
	m.t.Helper()
	var all listing
	err := m.Do(func() error {
		for _, part := range []func() (listing, error){
			links, routesAndRules, ruleset, parameters, processes, m.holders,
		} {
			lines, err := part()
			if err != nil {
				return err
			}
			all = append(all, lines...)
		}
		return nil
	})
	if err != nil {
		m.t.Fatalf("list %s: %v", m.Name(), err)
	}
	slices.Sort(all)
	return all
}

// again repeats a dump that the kernel says was disturbed by a change.
func again[T any](dump func() (T, error)) (T, error) {
	for {
		result, err := dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return result, err
		}
	}
}

// settled waits until the kernel has done by itself what follows from setting links up: their operational
// state, addresses and the routes of those come some time later.
func (m *machine) settled() {
	m.t.Helper()
	ctx := within(m.t, patience)
	for {
		var waiting []string
		err := m.Do(func() error {
			var err error
			waiting, err = unsettled()
			return err
		})
		switch {
		case err != nil:
			m.t.Fatalf("wait for the links of %s: %v", m.Name(), err)
		case len(waiting) == 0:
			return
		case ctx.Err() != nil:
			m.t.Fatalf("the links of %s do not settle: %v", m.Name(), waiting)
		}
		pause(ctx, pollPeriod)
	}
}

func unsettled() ([]string, error) {
	all, err := again(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	locals, err := again(func() ([]netlink.Route, error) {
		local := &netlink.Route{Table: unix.RT_TABLE_LOCAL}
		return netlink.RouteListFiltered(netlink.FAMILY_V6, local, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, err
	}
	var waiting []string
	for _, l := range all {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback != 0 || a.Flags&net.FlagUp == 0 {
			continue
		}
		addresses, err := addressesOn(l, netlink.FAMILY_V6)
		if err != nil {
			return nil, err
		}
		late := slices.ContainsFunc(addresses, func(x netlink.Addr) bool {
			isLocal := func(r netlink.Route) bool { return r.Dst != nil && r.Dst.IP.Equal(x.IP) }
			return x.Flags&unix.IFA_F_TENTATIVE != 0 || !slices.ContainsFunc(locals, isLocal)
		})
		alone := len(addresses) == 0 && a.MTU >= 1280 // the kernel speaks no IPv6 on shorter links (RFC 8200 section 5)
		if a.Flags&net.FlagRunning == 0 || late || alone {
			waiting = append(waiting, a.Name)
		}
	}
	return waiting, nil
}

func addressesOn(l netlink.Link, family int) ([]netlink.Addr, error) {
	return again(func() ([]netlink.Addr, error) { return netlink.AddrList(l, family) })
}

func links() (listing, error) {
	all, err := again(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	var lines listing
	for _, l := range all {
		a := l.Attrs()
		lines = append(lines, fmt.Sprintf("link %s %s mtu %d %s", a.Name, l.Type(), a.MTU, a.Flags))
		addresses, err := addressesOn(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, err
		}
		for _, address := range addresses {
			lines = append(lines, fmt.Sprintf("address %s %s flags %#x", a.Name, address.IPNet, address.Flags))
		}
	}
	return lines, nil
}

func routesAndRules() (listing, error) {
	names := map[int]string{}
	all, err := again(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var lines listing
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := again(func() ([]netlink.Route, error) {
			every := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
			return netlink.RouteListFiltered(family, every, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			if r.Flags&unix.RTM_F_CLONED != 0 {
				continue // what the kernel has learned of a path, not a route
			}
			lines = append(lines, fmt.Sprintf("route table %d type %d %v via %v dev %s src %v proto %d metric %d",
				r.Table, r.Type, r.Dst, r.Gw, names[r.LinkIndex], r.Src, r.Protocol, r.Priority))
		}
		rules, err := again(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			lines = append(lines, fmt.Sprintf("rule family %d %s invert %t protocol %d",
				family, r.String(), r.Invert, r.Protocol))
		}
	}
	return lines, nil
}

func ruleset() (listing, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, err
	}
	var lines listing
	for _, table := range tables {
		lines = append(lines, fmt.Sprintf("nft family %d table %s", table.Family, table.Name))
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, err
	}
	for _, chain := range chains {
		rules, err := c.GetRules(chain.Table, chain)
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("nft family %d table %s chain %s with %d rules",
			chain.Table.Family, chain.Table.Name, chain.Name, len(rules)))
	}
	return lines, nil
}

// parameters reads every kernel parameter of the two protocols that belongs to the namespace.
func parameters() (listing, error) {
	var lines listing
	for _, pattern := range []string{"ipv4/*", "ipv4/conf/*/*", "ipv6/*", "ipv6/conf/*/*"} {
		paths, err := filepath.Glob("/proc/sys/net/" + pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			switch {
			case errors.Is(err, unix.EISDIR), errors.Is(err, os.ErrPermission), errors.Is(err, unix.EIO),
				errors.Is(err, os.ErrNotExist), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOMEM):
				continue // a directory, or a secret that is not set
			case err != nil:
				return nil, err
			}
			lines = append(lines, fmt.Sprintf("sysctl %s = %s", path, bytes.TrimSpace(data)))
		}
	}
	return lines, nil
}

// processes lists the processes in the namespace of the calling thread, other than those that have ended.
func processes() (listing, error) {
	here, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var lines listing
	for _, dir := range dirs {
		there, err := os.Readlink(dir + "/ns/net")
		if err != nil || there != here {
			continue // it has ended, or is somebody else's, or elsewhere
		}
		command, err := os.ReadFile(dir + "/cmdline")
		if err != nil {
			continue // it has ended since
		}
		command = bytes.ReplaceAll(command, []byte{0}, []byte{' '})
		lines = append(lines, fmt.Sprintf("process %s %s", filepath.Base(dir), command))
	}
	return lines, nil
}

// holders lists the holder files of kernel parameters that name a daemon of this machine.
func (m *machine) holders() (listing, error) {
	paths, err := filepath.Glob("/run/aetherd/sysctl/*.json")
	if err != nil {
		return nil, err
	}
	var lines listing
	for _, path := range paths {
		data, err := os.ReadFile(path)
		switch {
		case errors.Is(err, os.ErrNotExist): // a daemon of another test has just ended
		case err != nil:
			return nil, err
		case bytes.Contains(data, []byte(m.dir)):
			lines = append(lines, fmt.Sprintf("holder file %s", data))
		}
	}
	return lines, nil
}

package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// Sets of our table. Those of addresses exist once per family, with its suffix.
const (
	setOwn     = "own"
	setTunnel  = "tunnel"
	setGranted = "granted"
	setPorts   = "ports"
)

// setSpec is a set of our table and what the plan puts into it.
type setSpec struct {
	name     string
	keyType  nftables.SetDatatype
	interval bool
	elements []nftables.SetElement
}

func (s setSpec) set(table *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: table, Name: s.name, KeyType: s.keyType, Interval: s.interval}
}

// sets lists the sets of a plan.
func (p Plan) sets() []setSpec {
	var out []setSpec
	for _, f := range families() {
		inFamily := func(a netip.Addr) bool { return a.BitLen() == int(f.length)*8 }
		own := setSpec{name: setOwn + f.suffix, keyType: f.keyType}
		for _, a := range p.OwnAddresses {
			if inFamily(a) {
				own.elements = append(own.elements, nftables.SetElement{Key: a.AsSlice()})
			}
		}
		tunnel := setSpec{name: setTunnel + f.suffix, keyType: f.keyType, interval: true}
		tunnel.elements = intervals(p.TunnelPrefixes, inFamily)
		granted := setSpec{name: setGranted + f.suffix, keyType: f.keyType, interval: true}
		granted.elements = intervals(p.Granted, inFamily)
		out = append(out, own, tunnel, granted)
	}
	ports := setSpec{name: setPorts, keyType: nftables.TypeInetService}
	for _, port := range p.Ports {
		key := binary.BigEndian.AppendUint16(nil, port)
		ports.elements = append(ports.elements, nftables.SetElement{Key: key})
	}
	return append(out, ports)
}

// setNames lists the names of the sets of every plan.
func setNames() []string {
	var out []string
	for _, s := range (Plan{}).sets() {
		out = append(out, s.name)
	}
	return out
}

// intervals turns the prefixes of a family into the starts and ends that a kernel set of intervals is made
// of. The kernel refuses overlapping intervals, so prefixes inside others are left out. An interval up to the
// last address has no end.
func intervals(prefixes []netip.Prefix, inFamily func(netip.Addr) bool) []nftables.SetElement {
	var out []nftables.SetElement
	var last netip.Prefix
	for _, p := range sortedUnique(prefixes, comparePrefix) {
		if !inFamily(p.Addr()) || (last.IsValid() && last.Contains(p.Addr())) {
			continue
		}
		last = p
		out = append(out, nftables.SetElement{Key: p.Addr().AsSlice()})
		if end := lastAddress(p).Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return mergeAdjacent(out)
}

// mergeAdjacent drops an end that is the next interval's start, and that start: the kernel would list them as
// one.
func mergeAdjacent(in []nftables.SetElement) []nftables.SetElement {
	var out []nftables.SetElement
	for _, e := range in {
		if n := len(out); n > 0 && out[n-1].IntervalEnd && slices.Equal(out[n-1].Key, e.Key) {
			out = out[:n-1]
			continue
		}
		out = append(out, e)
	}
	return out
}

func lastAddress(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for i := p.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

// hasElements reports whether a set in the kernel has exactly the elements of the plan.
func (s setSpec) hasElements(conn *nftables.Conn, table *nftables.Table) (bool, error) {
	found, err := conn.GetSetElements(s.set(table))
	if err != nil {
		return false, fmt.Errorf("list set %s: %w", s.name, err)
	}
	return slices.Equal(describeElements(found), describeElements(s.elements)), nil
}

// describeElements returns a sorted list to compare. The kernel may list an end at the start of the address
// space that stands for "nothing before the first interval".
func describeElements(in []nftables.SetElement) []string {
	var out []string
	for _, e := range in {
		zero := !slices.ContainsFunc(e.Key, func(b byte) bool { return b != 0 })
		if !e.IntervalEnd || !zero {
			out = append(out, fmt.Sprintf("%x %v", e.Key, e.IntervalEnd))
		}
	}
	slices.Sort(out)
	return out
}

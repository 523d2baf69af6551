// Package route holds immutable longest-prefix-match tables (RFC 1812 section 5.2.4.3) for IPv4 and IPv6.
package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Entry maps every address in Prefix to Value.
type Entry[V any] struct {
	Prefix netip.Prefix
	Value  V
}

// Table finds the value of the longest prefix that covers an address. The zero value is empty. A Table never changes
// after New, so any number of goroutines may look up at once without locks.
type Table[V any] struct {
	v4, v6 []level[V] // longest prefix first
}

// level holds all prefixes of one length. Tunnels use few different lengths (/32, /24, /16, /128, /64), so one map
// look-up per length is both small and quick, however many peers there are.
type level[V any] struct {
	bits   int
	values map[netip.Addr]V // keyed by the masked address
}

// New builds a table. Prefixes are masked; IPv4-mapped IPv6 prefixes are refused, and so are doubled ones, since the
// caller would not know which won.
func New[V any](entries []Entry[V]) (*Table[V], error) {
	t := &Table[V]{}
	for _, e := range entries {
		if !e.Prefix.IsValid() || e.Prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("route table: invalid prefix %v", e.Prefix)
		}
		levels := &t.v6
		if e.Prefix.Addr().Is4() {
			levels = &t.v4
		}
		values := levelOf(levels, e.Prefix.Bits())
		key := e.Prefix.Masked().Addr()
		if _, doubled := values[key]; doubled {
			return nil, fmt.Errorf("route table: prefix %v given twice", e.Prefix.Masked())
		}
		values[key] = e.Value
	}
	for _, levels := range [][]level[V]{t.v4, t.v6} {
		slices.SortFunc(levels, func(a, b level[V]) int { return cmp.Compare(b.bits, a.bits) })
	}
	return t, nil
}

func levelOf[V any](levels *[]level[V], bits int) map[netip.Addr]V {
	for _, l := range *levels {
		if l.bits == bits {
			return l.values
		}
	}
	values := make(map[netip.Addr]V)
	*levels = append(*levels, level[V]{bits: bits, values: values})
	return values
}

// Lookup returns the value of the longest prefix covering addr. It does not allocate.
func (t *Table[V]) Lookup(addr netip.Addr) (V, bool) {
	levels := t.v6
	if addr.Is4() {
		levels = t.v4
	}
	for i := range levels {
		p, err := addr.Prefix(levels[i].bits)
		if err != nil {
			break // addr is invalid: no table has an answer
		}
		if v, ok := levels[i].values[p.Addr()]; ok {
			return v, true
		}
	}
	var none V
	return none, false
}

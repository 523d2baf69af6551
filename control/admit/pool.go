package admit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"slices"

	"github.com/aethertunnel/aethertunnel/control/store"
)

const (
	poolBitsIPv6  = 64 // nodes get addresses of the first /64 of a shorter prefix
	minBits       = 8  // shorter prefixes are no networks of ours
	spareBits     = 2  // a prefix must hold a gateway, a member and what is skipped
	sharedBits    = 16 // the IPv4 prefix of a network that chooses its own
	sharedCount   = 64 // how many of them 100.64.0.0/10 holds
	localBits     = 48 // the IPv6 prefix of a network that chooses its own
	localAttempts = 64 // random prefixes tried before giving up
	defaultV4Bits = 8  // shorter prefixes to avoid are default routes in disguise
	defaultV6Bits = 7
	skippedShared = 100 // see freeShared
)

func choosePrefixes(p NetworkParams, random io.Reader) ([]netip.Prefix, error) {
	avoid := slices.DeleteFunc(slices.Clone(p.Avoid), func(prefix netip.Prefix) bool {
		least := defaultV6Bits
		if prefix.Addr().Is4() {
			least = defaultV4Bits
		}
		return !prefix.IsValid() || prefix.Bits() < least
	})
	if len(p.Prefixes) > 0 {
		return p.Prefixes, checkPrefixes(p.Prefixes, avoid)
	}
	shared, err := freeShared(avoid, random)
	if err != nil {
		return nil, err
	}
	local, err := freeLocal(avoid, random)
	return []netip.Prefix{shared, local}, err
}

func checkPrefixes(prefixes, avoid []netip.Prefix) error {
	for i, prefix := range prefixes {
		if err := checkNodePrefix(prefix); err != nil {
			return err
		}
		if i > 0 && prefix.Addr().Is4() == prefixes[0].Addr().Is4() || i > 1 {
			return fmt.Errorf("%w: a network has one prefix of each family, %s is one more", ErrPrefix, prefix)
		}
		if other, ok := overlapping(prefix, avoid); ok {
			return fmt.Errorf("%w: %s overlaps %s", ErrPrefixConflict, prefix, other)
		}
	}
	return nil
}

func checkNodePrefix(prefix netip.Prefix) error {
	switch address := prefix.Addr(); {
	case !prefix.IsValid() || address.Is4In6() || address.Zone() != "":
		return fmt.Errorf("%w: %s is not a prefix of addresses", ErrPrefix, prefix)
	case prefix != prefix.Masked():
		return fmt.Errorf("%w: %s has bits set behind its length; %s is meant?", ErrPrefix, prefix, prefix.Masked())
	case prefix.Bits() < minBits || prefix.Bits() > address.BitLen()-spareBits:
		return fmt.Errorf("%w: %s must have a length from %d to %d",
			ErrPrefix, prefix, minBits, address.BitLen()-spareBits)
	case unusable(prefix):
		return fmt.Errorf("%w: %s is reserved for another use", ErrPrefix, prefix)
	}
	return nil
}

// unusable reports whether prefix overlaps addresses that do not name single machines beyond one link.
func unusable(prefix netip.Prefix) bool {
	_, ok := overlapping(prefix, []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 8),              // this network (RFC 1122)
		netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8),           // loopback
		netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254}), 16),     // link-local
		netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 3),           // multicast and reserved
		netip.PrefixFrom(netip.AddrFrom16([16]byte{}), 8),            // unspecified, loopback, mapped IPv4
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0x80}), 10), // link-local
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8),        // multicast
	})
	return ok
}

func overlapping(prefix netip.Prefix, others []netip.Prefix) (netip.Prefix, bool) {
	for _, other := range others {
		if prefix.Overlaps(other) {
			return other, true
		}
	}
	return netip.Prefix{}, false
}

// freeShared picks one of the free /16 of 100.64.0.0/10 at random, so that two networks that meet on one
// machine rarely have the same. 100.100.0.0/16 is left out: clouds and other overlays answer on well-known
// addresses there.
func freeShared(avoid []netip.Prefix, random io.Reader) (netip.Prefix, error) {
	var free []netip.Prefix
	for i := range byte(sharedCount) {
		if second := 64 + i; second != skippedShared {
			prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, second}), sharedBits)
			if _, taken := overlapping(prefix, avoid); !taken {
				free = append(free, prefix)
			}
		}
	}
	if len(free) == 0 {
		return netip.Prefix{}, fmt.Errorf("%w: all of 100.64.0.0/10 is in use", ErrNoFreePrefix)
	}
	var raw [8]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return netip.Prefix{}, fmt.Errorf("choose a prefix: %w", err)
	}
	return free[binary.BigEndian.Uint64(raw[:])%uint64(len(free))], nil
}

// freeLocal makes a unique local prefix of 40 random bits (RFC 4193 section 3.2).
func freeLocal(avoid []netip.Prefix, random io.Reader) (netip.Prefix, error) {
	for range localAttempts {
		address := [16]byte{0xfd}
		if _, err := io.ReadFull(random, address[1:localBits/8]); err != nil {
			return netip.Prefix{}, fmt.Errorf("choose a prefix: %w", err)
		}
		prefix := netip.PrefixFrom(netip.AddrFrom16(address), localBits)
		if _, taken := overlapping(prefix, avoid); !taken {
			return prefix, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("%w: fd00::/8 is in use", ErrNoFreePrefix)
}

// withAddresses gives the node an address in each of the network's prefixes where it has none.
func (a *Authority) withAddresses(tx *store.Tx, node store.Node) (store.Node, error) {
	var addresses []netip.Addr
	for _, prefix := range a.network.Prefixes {
		at := slices.IndexFunc(node.Addresses, prefix.Contains)
		if at >= 0 {
			addresses = append(addresses, node.Addresses[at])
			continue
		}
		address, err := nextAddress(tx, prefix)
		if err != nil {
			return store.Node{}, err
		}
		addresses = append(addresses, address)
	}
	node.Addresses = addresses
	return node, nil
}

// nextAddress takes the lowest address that was never given out, else the one whose revoked node lost it
// first.
func nextAddress(tx *store.Tx, prefix netip.Prefix) (netip.Addr, error) {
	used, err := tx.Cursor(prefix)
	if err != nil {
		return netip.Addr{}, err
	}
	if used < capacity(prefix) {
		return addressAt(prefix, used), tx.SetCursor(prefix, used+1)
	}
	address, owner, err := tx.OldestFreed(prefix)
	if errors.Is(err, store.ErrNotFound) {
		return netip.Addr{}, fmt.Errorf("%w: all %d addresses of %s are given out; revoke nodes that are gone",
			ErrPoolExhausted, capacity(prefix), prefix)
	}
	if err != nil {
		return netip.Addr{}, err
	}
	old, err := tx.Node(owner)
	if err != nil {
		return netip.Addr{}, err
	}
	old.Addresses = slices.DeleteFunc(old.Addresses, func(a netip.Addr) bool { return a == address })
	return address, tx.PutNode(old)
}

// capacity returns how many nodes the prefix holds. The first address is skipped (the network's, or the IPv6
// subnet-router anycast address of RFC 4291 section 2.6.1), for IPv4 the last too (broadcast).
func capacity(prefix netip.Prefix) uint64 {
	hostBits := prefix.Addr().BitLen() - prefix.Bits()
	if prefix.Addr().Is4() {
		return 1<<hostBits - 2
	}
	return 1<<min(hostBits, poolBitsIPv6-1) - 1
}

// addressAt returns the address of the node that is number index, from 0, in prefix. The prefix's own is
// skipped.
func addressAt(prefix netip.Prefix, index uint64) netip.Addr {
	raw := prefix.Addr().AsSlice()
	sum := new(big.Int).SetBytes(raw)
	sum.Add(sum, new(big.Int).SetUint64(index+1))
	address, _ := netip.AddrFromSlice(sum.FillBytes(raw)) // as long as it came
	return address
}

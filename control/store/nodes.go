package store

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// Node returns the node with the given id. Errors: [ErrNotFound].
func (tx *Tx) Node(id identity.ID) (Node, error) {
	var n Node
	if err := tx.get(bucketNodes, id[:], &n); err != nil {
		return Node{}, fmt.Errorf("node %s: %w", id.Short(), err)
	}
	return n, nil
}

// NodeByName returns the node with the given name. Errors: [ErrNotFound].
func (tx *Tx) NodeByName(name string) (Node, error) {
	id := tx.bucket(bucketNames).Get([]byte(name))
	if name == "" || len(id) != identity.IDSize {
		return Node{}, fmt.Errorf("node %q: %w", name, ErrNotFound)
	}
	return tx.Node(identity.ID(id))
}

// NodeByAddress returns the node that the given address belongs to. Errors: [ErrNotFound].
func (tx *Tx) NodeByAddress(address netip.Addr) (Node, error) {
	id := tx.bucket(bucketAddresses).Get(address.AsSlice())
	if !address.IsValid() || len(id) != identity.IDSize {
		return Node{}, fmt.Errorf("node of %s: %w", address, ErrNotFound)
	}
	return tx.Node(identity.ID(id))
}

// HasName reports whether a node has the given name.
func (tx *Tx) HasName(name string) bool { return tx.bucket(bucketNames).Get([]byte(name)) != nil }

// Nodes returns all nodes, by name.
func (tx *Tx) Nodes() ([]Node, error) {
	var nodes []Node
	err := tx.each(bucketNodes, nil, func(_, value []byte) (bool, error) {
		var n Node
		if err := decode(bucketNodes, value, &n); err != nil {
			return true, err
		}
		nodes = append(nodes, n)
		return false, nil
	})
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes, err
}

// PutNode adds the node or replaces the one with the same id. Errors: [ErrTaken] if its name or one of its
// addresses belongs to another node, revoked ones included.
func (tx *Tx) PutNode(n Node) error {
	if n.Name == "" || n.ID.IsZero() {
		return fmt.Errorf("put node without a name or id")
	}
	old, err := tx.Node(n.ID)
	found, err := exists(err)
	if err != nil {
		return err
	}
	if found {
		if err := tx.removeIndexes(old); err != nil {
			return err
		}
	}
	if err := tx.addIndexes(n); err != nil {
		return err
	}
	return tx.put(bucketNodes, n.ID[:], n)
}

// OldestFreed returns the address in prefix whose node has been revoked for the longest time, with that
// node's id. Errors: [ErrNotFound] if no revoked node has one.
func (tx *Tx) OldestFreed(prefix netip.Prefix) (netip.Addr, identity.ID, error) {
	var address netip.Addr
	var id identity.ID
	family := []byte{byte(prefix.Addr().BitLen())}
	err := tx.each(bucketFreed, family, func(key, value []byte) (bool, error) {
		candidate, ok := netip.AddrFromSlice(key[min(len(key), 1+8):])
		if !ok || len(value) != identity.IDSize {
			return true, fmt.Errorf("%w: record in %s", ErrDamaged, bucketFreed)
		}
		if !prefix.Contains(candidate) {
			return false, nil
		}
		address, id = candidate, identity.ID(value)
		return true, nil
	})
	if err == nil && !address.IsValid() {
		err = fmt.Errorf("freed address in %s: %w", prefix, ErrNotFound)
	}
	return address, id, err
}

func (tx *Tx) addIndexes(n Node) error {
	if err := tx.claim(bucketNames, []byte(n.Name), n.ID); err != nil {
		return fmt.Errorf("name %s: %w", n.Name, err)
	}
	for _, address := range n.Addresses {
		if err := tx.claim(bucketAddresses, address.AsSlice(), n.ID); err != nil {
			return fmt.Errorf("address %s: %w", address, err)
		}
		if !n.IsRevoked() {
			continue
		}
		if err := tx.putRaw(bucketFreed, freedKey(n, address), n.ID[:]); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) claim(bucket string, key []byte, id identity.ID) error {
	if len(key) == 0 {
		return fmt.Errorf("empty key for %s", bucket)
	}
	if owner := tx.bucket(bucket).Get(key); owner != nil && string(owner) != string(id[:]) {
		return ErrTaken
	}
	return tx.putRaw(bucket, key, id[:])
}

func (tx *Tx) removeIndexes(n Node) error {
	if err := tx.remove(bucketNames, []byte(n.Name)); err != nil {
		return err
	}
	for _, address := range n.Addresses {
		if err := tx.remove(bucketAddresses, address.AsSlice()); err != nil {
			return err
		}
		if !n.IsRevoked() {
			continue
		}
		if err := tx.remove(bucketFreed, freedKey(n, address)); err != nil {
			return err
		}
	}
	return nil
}

// freedKey sorts by family, then by the time of revocation.
func freedKey(n Node, address netip.Addr) []byte {
	key := []byte{byte(address.BitLen())}
	key = binary.BigEndian.AppendUint64(key, uint64(n.Revoked.UnixNano()))
	return append(key, address.AsSlice()...)
}

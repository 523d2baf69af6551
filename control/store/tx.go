package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"go.etcd.io/bbolt"
)

// Tx is a transaction of [Store.View], [Store.Update] or [Store.Batch]. It is valid inside their function
// only, and for one goroutine. Methods that change something fail in a View.
type Tx struct {
	bolt *bbolt.Tx
}

// networkRecord is how a network lies on disk: the only place where its key is written.
type networkRecord struct {
	Network
	CAKey []byte `json:"ca_key"`
}

// Network returns the network that this node owns. Errors: [ErrNotFound] if it owns none.
func (tx *Tx) Network() (Network, error) {
	var record networkRecord
	if err := tx.get(bucketMeta, []byte(keyNetwork), &record); err != nil {
		return Network{}, fmt.Errorf("network: %w", err)
	}
	record.Network.CAKey = NewSecret(record.CAKey)
	return record.Network, nil
}

// SetNetwork sets the network that this node owns.
func (tx *Tx) SetNetwork(n Network) error {
	return tx.put(bucketMeta, []byte(keyNetwork), networkRecord{Network: n, CAKey: n.CAKey.Reveal()})
}

// Membership returns the membership of this node. Errors: [ErrNotFound] if it has joined no network.
func (tx *Tx) Membership() (Membership, error) {
	var m Membership
	if err := tx.get(bucketMeta, []byte(keyMembership), &m); err != nil {
		return Membership{}, fmt.Errorf("membership: %w", err)
	}
	return m, nil
}

// SetMembership sets the membership of this node.
func (tx *Tx) SetMembership(m Membership) error { return tx.put(bucketMeta, []byte(keyMembership), m) }

// DeleteMembership forgets the membership of this node, if there is one.
func (tx *Tx) DeleteMembership() error { return tx.remove(bucketMeta, []byte(keyMembership)) }

// HostSelectors returns the numbers chosen for this state directory. Errors: [ErrNotFound] before they are
// set.
func (tx *Tx) HostSelectors() (HostSelectors, error) {
	var h HostSelectors
	if err := tx.get(bucketMeta, []byte(keySelectors), &h); err != nil {
		return HostSelectors{}, fmt.Errorf("host selectors: %w", err)
	}
	return h, nil
}

// SetHostSelectors sets the numbers chosen for this state directory.
func (tx *Tx) SetHostSelectors(h HostSelectors) error {
	return tx.put(bucketMeta, []byte(keySelectors), h)
}

// Cursor returns the number set for prefix with [Tx.SetCursor], 0 before.
func (tx *Tx) Cursor(prefix netip.Prefix) (uint64, error) {
	value := tx.bucket(bucketCursors).Get([]byte(prefix.String()))
	if value == nil {
		return 0, nil
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("cursor of %s: %w", prefix, ErrDamaged)
	}
	return binary.BigEndian.Uint64(value), nil
}

// SetCursor remembers a number for prefix: how far the addresses in it have been handed out.
func (tx *Tx) SetCursor(prefix netip.Prefix, at uint64) error {
	return tx.putRaw(bucketCursors, []byte(prefix.String()), binary.BigEndian.AppendUint64(nil, at))
}

func (tx *Tx) bucket(name string) *bbolt.Bucket { return tx.bolt.Bucket([]byte(name)) }

func (tx *Tx) get(bucket string, key []byte, record any) error {
	value := tx.bucket(bucket).Get(key)
	if value == nil {
		return ErrNotFound
	}
	return decode(bucket, value, record)
}

func decode(bucket string, value []byte, record any) error {
	if err := json.Unmarshal(value, record); err != nil {
		return fmt.Errorf("%w: record in %s: %w", ErrDamaged, bucket, err)
	}
	return nil
}

func (tx *Tx) put(bucket string, key []byte, record any) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode record for %s: %w", bucket, err)
	}
	return tx.putRaw(bucket, key, value)
}

func (tx *Tx) putRaw(bucket string, key, value []byte) error {
	if !tx.bolt.Writable() {
		return errReadTx
	}
	if err := tx.bucket(bucket).Put(key, value); err != nil {
		return fmt.Errorf("put record into %s: %w", bucket, err)
	}
	return nil
}

func (tx *Tx) remove(bucket string, key []byte) error {
	if !tx.bolt.Writable() {
		return errReadTx
	}
	if err := tx.bucket(bucket).Delete(key); err != nil {
		return fmt.Errorf("delete record from %s: %w", bucket, err)
	}
	return nil
}

// each calls fn for the records whose keys begin with prefix, in the order of the keys, until fn is done or
// fails.
func (tx *Tx) each(bucket string, prefix []byte, fn func(key, value []byte) (done bool, err error)) error {
	cursor := tx.bucket(bucket).Cursor()
	for key, value := cursor.Seek(prefix); key != nil && hasPrefix(key, prefix); key, value = cursor.Next() {
		if done, err := fn(key, value); done || err != nil {
			return err
		}
	}
	return nil
}

func hasPrefix(key, prefix []byte) bool {
	return len(key) >= len(prefix) && string(key[:len(prefix)]) == string(prefix)
}

// exists turns [ErrNotFound] into false.
func exists(err error) (bool, error) {
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

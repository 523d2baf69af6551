package store

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// The buckets and what they map.
const (
	bucketMeta        = "meta"        // names below to values
	bucketNodes       = "nodes"       // node id to node
	bucketNames       = "names"       // node name to node id
	bucketAddresses   = "addresses"   // address, 4 or 16 bytes, to node id
	bucketFreed       = "freed"       // family ‖ time of revocation ‖ address to node id
	bucketCursors     = "cursors"     // prefix to the number of addresses handed out so far
	bucketInvites     = "invites"     // hash of the secret to invite
	bucketRedemptions = "redemptions" // hash of the secret ‖ node id to nothing
	bucketRoutes      = "routes"      // node id ‖ prefix to route
)

// The keys of bucketMeta.
const (
	keySchema     = "schema" // uint32, big-endian
	keyNetwork    = "network"
	keyMembership = "membership"
	keySelectors  = "host selectors"
)

// migration brings the file from one schema version to the next, in the transaction that also raises the
// version.
type migration func(tx *bbolt.Tx) error

// schema returns the steps that lead from nothing to the newest version; their number is that version. A
// step, once released, never changes.
func schema() []migration {
	return []migration{
		func(tx *bbolt.Tx) error {
			for _, bucket := range []string{
				bucketNodes, bucketNames, bucketAddresses, bucketFreed, bucketCursors,
				bucketInvites, bucketRedemptions, bucketRoutes,
			} {
				if _, err := tx.CreateBucketIfNotExists([]byte(bucket)); err != nil {
					return fmt.Errorf("make bucket %s: %w", bucket, err)
				}
			}
			return nil
		},
	}
}

// initialise makes the bucket that holds the version, and sets it to 0, which has nothing else.
func (s *Store) initialise() error {
	return s.run(s.db.Update, func(tx *Tx) error {
		meta, err := tx.bolt.CreateBucketIfNotExists([]byte(bucketMeta))
		if err != nil {
			return describe("create", s.path, err)
		}
		return describe("create", s.path, meta.Put([]byte(keySchema), binary.BigEndian.AppendUint32(nil, 0)))
	})
}

// migrate brings the file to the newest version that steps know. A file that is there already is not written
// to.
func (s *Store) migrate(steps []migration) error {
	version, err := s.schemaVersion()
	if err != nil {
		return err
	}
	newest := uint32(len(steps))
	if version > newest {
		return fmt.Errorf("open %s: %w: schema %d, this program knows up to %d; upgrade the program",
			s.path, ErrNewer, version, newest)
	}
	if version == newest {
		return nil
	}
	return s.run(s.db.Update, func(tx *Tx) error {
		for at := version; at < newest; at++ {
			if err := steps[at](tx.bolt); err != nil {
				return fmt.Errorf("migrate %s from schema %d to %d: %w", s.path, at, at+1, err)
			}
		}
		meta := tx.bolt.Bucket([]byte(bucketMeta))
		return describe("migrate", s.path, meta.Put([]byte(keySchema), binary.BigEndian.AppendUint32(nil, newest)))
	})
}

func (s *Store) schemaVersion() (uint32, error) {
	var version uint32
	err := s.View(func(tx *Tx) error {
		var value []byte
		if meta := tx.bolt.Bucket([]byte(bucketMeta)); meta != nil {
			value = meta.Get([]byte(keySchema))
		}
		if len(value) != 4 {
			return fmt.Errorf("open %s: %w: it has no schema version", s.path, ErrDamaged)
		}
		version = binary.BigEndian.Uint32(value)
		return nil
	})
	return version, err
}

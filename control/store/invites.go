package store

import (
	"fmt"
	"slices"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// Invite returns the invite whose secret has the given hash. Errors: [ErrNotFound].
func (tx *Tx) Invite(hash [32]byte) (Invite, error) {
	var invite Invite
	if err := tx.get(bucketInvites, hash[:], &invite); err != nil {
		return Invite{}, fmt.Errorf("invite: %w", err)
	}
	invite.Hash = hash
	return invite, nil
}

// Invites returns all invites, oldest first.
func (tx *Tx) Invites() ([]Invite, error) {
	var invites []Invite
	err := tx.each(bucketInvites, nil, func(key, value []byte) (bool, error) {
		var invite Invite
		if err := decode(bucketInvites, value, &invite); err != nil {
			return true, err
		}
		if copy(invite.Hash[:], key) != len(key) {
			return true, fmt.Errorf("%w: key in %s", ErrDamaged, bucketInvites)
		}
		invites = append(invites, invite)
		return false, nil
	})
	slices.SortStableFunc(invites, func(a, b Invite) int { return a.Created.Compare(b.Created) })
	return invites, err
}

// PutInvite adds the invite or replaces the one of the same hash.
func (tx *Tx) PutInvite(invite Invite) error { return tx.put(bucketInvites, invite.Hash[:], invite) }

// DeleteInvite forgets the invite, if there is one, and who has redeemed it.
func (tx *Tx) DeleteInvite(hash [32]byte) error {
	var keys [][]byte
	err := tx.each(bucketRedemptions, hash[:], func(key, _ []byte) (bool, error) {
		keys = append(keys, slices.Clone(key))
		return false, nil
	})
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := tx.remove(bucketRedemptions, key); err != nil {
			return err
		}
	}
	return tx.remove(bucketInvites, hash[:])
}

// Redeemed reports whether the node has joined by the invite of the given hash.
func (tx *Tx) Redeemed(hash [32]byte, node identity.ID) bool {
	return tx.bucket(bucketRedemptions).Get(redemptionKey(hash, node)) != nil
}

// SetRedeemed remembers that the node has joined by the invite of the given hash.
func (tx *Tx) SetRedeemed(hash [32]byte, node identity.ID) error {
	return tx.putRaw(bucketRedemptions, redemptionKey(hash, node), []byte{})
}

func redemptionKey(hash [32]byte, node identity.ID) []byte { return append(hash[:], node[:]...) }

package admit

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

const (
	// MaxUses bounds how many nodes may join by one invite.
	MaxUses = 10_000
	// MaxTTL bounds the life of an invite.
	MaxTTL = 366 * 24 * time.Hour

	// keepExpired is how long the gateway can tell that an invite has expired, before it becomes unknown.
	keepExpired = 30 * 24 * time.Hour
)

// InviteOptions describes an invite to be made.
type InviteOptions struct {
	// Uses is how many nodes may join by it, 1 to [MaxUses]; for a stock invite 1.
	Uses int
	// TTL is how long it may be used, up to [MaxTTL]. For a stock invite it bounds the first use.
	TTL time.Duration
	// Routes are approved for each node that joins by it.
	Routes []netip.Prefix
	// Stock makes the bearer token of a CONNECT-IP client of another make.
	Stock bool
	// Name is the node's name if it asks for none; may be empty.
	Name string
}

// Invite makes an invite. The secret is not kept: who loses it makes another. For a stock invite the caller
// hands out [token.Bearer] of the secret, else [token.Invite]. Errors: [ErrInviteOptions], [ErrPrefix],
// [ErrPrefixConflict].
func (a *Authority) Invite(o InviteOptions) (token.Secret, store.Invite, error) {
	if err := a.checkOptions(o); err != nil {
		return token.Secret{}, store.Invite{}, err
	}
	secret, err := token.NewSecret(a.config.Random)
	if err != nil {
		return token.Secret{}, store.Invite{}, err
	}
	now := a.now()
	invite := store.Invite{
		Hash:     secret.Hash(),
		UsesLeft: o.Uses,
		Created:  now,
		Expires:  now.Add(o.TTL),
		Routes:   o.Routes,
		Stock:    o.Stock,
		Name:     o.Name,
	}
	err = a.store.Update(func(tx *store.Tx) error {
		if err := forgetOld(tx, now); err != nil {
			return err
		}
		return tx.PutInvite(invite)
	})
	if err != nil {
		secret.Wipe()
		return token.Secret{}, store.Invite{}, err
	}
	return secret, invite, nil
}

func (a *Authority) checkOptions(o InviteOptions) error {
	switch {
	case o.Uses < 1 || o.Uses > MaxUses:
		return fmt.Errorf("%w: %d uses instead of 1 to %d", ErrInviteOptions, o.Uses, MaxUses)
	case o.Stock && o.Uses != 1:
		return fmt.Errorf("%w: a bearer token is one client's; make one for each", ErrInviteOptions)
	case o.TTL <= 0 || o.TTL > MaxTTL:
		return fmt.Errorf("%w: life of %s instead of up to %s", ErrInviteOptions, o.TTL, MaxTTL)
	case len(o.Routes) > MaxRoutes:
		return fmt.Errorf("%w: %w: %d instead of up to %d", ErrInviteOptions, ErrTooManyRoutes, len(o.Routes),
			MaxRoutes)
	}
	for _, prefix := range o.Routes {
		if err := a.checkRoute(prefix); err != nil {
			return err
		}
	}
	return nil
}

// Invites returns the invites on record, oldest first, expired ones of the last 30 days included.
func (a *Authority) Invites() (invites []store.Invite, err error) {
	err = a.store.View(func(tx *store.Tx) (err error) {
		invites, err = tx.Invites()
		return err
	})
	return invites, err
}

// forgetOld deletes invites that expired long ago. The token of a stock client that has been used lives on.
func forgetOld(tx *store.Tx, now time.Time) error {
	invites, err := tx.Invites()
	if err != nil {
		return err
	}
	for _, invite := range invites {
		if now.Sub(invite.Expires) < keepExpired || invite.Stock && invite.UsesLeft == 0 {
			continue
		}
		if err := tx.DeleteInvite(invite.Hash); err != nil {
			return err
		}
	}
	return nil
}

// usableInvite returns the invite if the node may join by it, and whether it has done so before.
func (a *Authority) usableInvite(
	tx *store.Tx, hash [32]byte, node identity.ID, stock bool,
) (invite store.Invite, redeemed bool, err error) {
	invite, err = tx.Invite(hash)
	if errors.Is(err, store.ErrNotFound) {
		return store.Invite{}, false, ErrInviteUnknown
	}
	if err != nil {
		return store.Invite{}, false, err
	}
	// The lookup went by the hash, which a guesser cannot steer; this is for the day when it does not.
	if subtle.ConstantTimeCompare(invite.Hash[:], hash[:]) != 1 || invite.Stock != stock {
		return store.Invite{}, false, ErrInviteUnknown
	}
	redeemed = tx.Redeemed(hash, node)
	switch {
	case redeemed && stock:
		return invite, true, nil
	case !a.now().Before(invite.Expires):
		return store.Invite{}, false, fmt.Errorf("%w (at %s)", ErrInviteExpired,
			invite.Expires.Format(time.RFC3339))
	case !redeemed && invite.UsesLeft < 1:
		return store.Invite{}, false, ErrInviteUsed
	}
	return invite, redeemed, nil
}

// useInvite counts the node's joining, once.
func useInvite(tx *store.Tx, invite store.Invite, node identity.ID) error {
	invite.UsesLeft--
	if err := tx.PutInvite(invite); err != nil {
		return err
	}
	return tx.SetRedeemed(invite.Hash, node)
}

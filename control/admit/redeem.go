package admit

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

// Redeem admits the node that made the request, if the invite's secret and its signature allow. Concurrent
// calls for a one-use invite admit one node; the same node may call again (see the package comment). Routes
// in the request are put on offer; those of the invite are approved. Errors: [ErrInviteUnknown],
// [ErrInviteExpired], [ErrInviteUsed], [ErrRequest], [ErrRevoked], [ErrGatewayNode], [ErrPoolExhausted],
// [ErrPrefix], [ErrPrefixConflict], and those of the store.
//
// Without a usable invite a stranger's request costs a hash and a look-up, and changes nothing.
func (a *Authority) Redeem(r JoinRequest, proof Proof) (Admission, error) {
	hash := proof.Secret.Hash()
	err := a.store.View(func(tx *store.Tx) error {
		_, _, err := a.usableInvite(tx, hash, r.Public.ID(), false)
		return err
	})
	if err != nil {
		return Admission{}, err
	}
	if err := r.verify(proof); err != nil {
		return Admission{}, err
	}
	for _, prefix := range r.Routes {
		if err := a.checkRoute(prefix); err != nil {
			return Admission{}, err
		}
	}
	var node store.Node
	err = a.store.Batch(func(tx *store.Tx) (err error) {
		node, err = a.redeem(tx, hash, r)
		return err
	})
	if err != nil {
		return Admission{}, err
	}
	return a.admission(node), nil
}

func (a *Authority) redeem(tx *store.Tx, hash [32]byte, r JoinRequest) (store.Node, error) {
	id := r.Public.ID()
	invite, redeemed, err := a.usableInvite(tx, hash, id, false)
	if err != nil {
		return store.Node{}, err
	}
	if id == a.network.Gateway {
		return store.Node{}, fmt.Errorf("join: %w", ErrGatewayNode)
	}
	node, err := a.admitted(tx, id)
	if errors.Is(err, ErrUnknownNode) {
		wanted := SanitizeName(r.Name, SanitizeName(invite.Name, "node"))
		node = store.Node{
			ID: id, Public: r.Public, Role: store.RoleMember, Created: a.now(),
			Name: uniqueName(tx, wanted),
		}
		err = nil
	}
	if err != nil {
		return store.Node{}, err
	}
	if !redeemed {
		if err := useInvite(tx, invite, id); err != nil {
			return store.Node{}, err
		}
	}
	if node, err = a.withAddresses(tx, node); err != nil {
		return store.Node{}, err
	}
	if node, err = a.withCertificate(node); err != nil {
		return store.Node{}, err
	}
	if err := tx.PutNode(node); err != nil {
		return store.Node{}, err
	}
	return node, a.joinRoutes(tx, id, r, invite)
}

func (a *Authority) joinRoutes(tx *store.Tx, id identity.ID, r JoinRequest, invite store.Invite) error {
	for _, prefix := range invite.Routes {
		if _, err := a.approve(tx, id, prefix); err != nil {
			return err
		}
	}
	return a.offer(tx, id, r.Routes)
}

// withCertificate keeps a certificate that will do for long, so that a repeated request gets the same answer.
func (a *Authority) withCertificate(node store.Node) (store.Node, error) {
	leaf, err := x509.ParseCertificate(node.Certificate)
	if err == nil && checkTime(leaf, a.now()) == nil && !NeedsRenewal(leaf, a.now()) {
		return node, nil
	}
	request := leafRequest{network: a.network.ID, node: node, now: a.now()}
	return a.ca.issue(request, a.config.Random)
}

// AuthenticateBearer returns the node of a stock client by its token, and makes it at the first use. The
// token then stays good until the node is revoked. Any failure matches [ErrBearer]; the cause behind it is
// for the gateway's own log. Bearer tokens prove nothing about a key: such sessions are classical.
func (a *Authority) AuthenticateBearer(text string) (store.Node, error) {
	secret, err := token.ParseBearer(text)
	if err != nil {
		return store.Node{}, fmt.Errorf("%w: %w", ErrBearer, err)
	}
	hash := secret.Hash()
	secret.Wipe()
	id := identity.ID(identity.LabelStockID.Sum(hash[:]))
	var node store.Node
	var redeemed bool
	err = a.store.View(func(tx *store.Tx) (err error) {
		if _, redeemed, err = a.usableInvite(tx, hash, id, true); err != nil || !redeemed {
			return err
		}
		node, err = a.admitted(tx, id)
		return err
	})
	if err == nil && !redeemed {
		err = a.store.Batch(func(tx *store.Tx) (err error) {
			node, err = a.redeemBearer(tx, hash, id)
			return err
		})
	}
	if err != nil {
		return store.Node{}, fmt.Errorf("%w: %w", ErrBearer, err)
	}
	return node, nil
}

func (a *Authority) redeemBearer(tx *store.Tx, hash [32]byte, id identity.ID) (store.Node, error) {
	invite, redeemed, err := a.usableInvite(tx, hash, id, true)
	if err != nil {
		return store.Node{}, err
	}
	if redeemed { // by a call at the same time
		return a.admitted(tx, id)
	}
	node := store.Node{
		ID:      id,
		Name:    uniqueName(tx, SanitizeName(invite.Name, "stock")),
		Created: a.now(),
		Role:    store.RoleMember,
		Stock:   true,
	}
	if node, err = a.withAddresses(tx, node); err != nil {
		return store.Node{}, err
	}
	if err := useInvite(tx, invite, id); err != nil {
		return store.Node{}, err
	}
	if err := tx.PutNode(node); err != nil {
		return store.Node{}, err
	}
	return node, a.joinRoutes(tx, id, JoinRequest{}, invite)
}

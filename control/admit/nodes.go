package admit

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// TouchStep is how coarse the record of a node's last session is.
const TouchStep = time.Minute

// Nodes returns all nodes by name, the gateway and revoked ones included.
func (a *Authority) Nodes() (nodes []store.Node, err error) {
	err = a.store.View(func(tx *store.Tx) (err error) {
		nodes, err = tx.Nodes()
		return err
	})
	return nodes, err
}

// Node returns the node of the given name, or of the given id in text, revoked ones included. Errors:
// [ErrUnknownNode].
func (a *Authority) Node(name string) (node store.Node, err error) {
	err = a.store.View(func(tx *store.Tx) (err error) {
		node, err = find(tx, name)
		return err
	})
	return node, err
}

// Revoke ends the admission of the node of the given name, or of the given id in text. The caller ends its
// sessions. A node that is revoked already keeps its date. Errors: [ErrUnknownNode], [ErrGatewayNode].
func (a *Authority) Revoke(name string) (store.Node, error) {
	return a.change(name, func(node *store.Node) {
		if !node.IsRevoked() {
			node.Revoked = a.now()
		}
	})
}

// Unrevoke takes back [Authority.Revoke]: the node's certificate counts again, and so do its keys. If its
// addresses have gone to others meanwhile it gets new ones. Errors: [ErrUnknownNode], [ErrPoolExhausted].
func (a *Authority) Unrevoke(name string) (store.Node, error) {
	return a.change(name, func(node *store.Node) { node.Revoked = time.Time{} })
}

func (a *Authority) change(name string, apply func(*store.Node)) (node store.Node, err error) {
	err = a.store.Update(func(tx *store.Tx) (err error) {
		if node, err = find(tx, name); err != nil {
			return err
		}
		if node.Role == store.RoleGateway {
			return fmt.Errorf("%s: %w", node.Name, ErrGatewayNode)
		}
		apply(&node)
		if err := tx.PutNode(node); err != nil || node.IsRevoked() {
			return err
		}
		if node, err = a.withAddresses(tx, node); err != nil {
			return err
		}
		return tx.PutNode(node)
	})
	return node, err
}

func find(tx *store.Tx, name string) (store.Node, error) {
	id, err := identity.ParseID(name)
	if err == nil {
		// The id goes first: a hostile node may have named itself like another's id.
		if node, err := tx.Node(id); !errors.Is(err, store.ErrNotFound) {
			return node, err
		}
	}
	node, err := tx.NodeByName(name)
	if errors.Is(err, store.ErrNotFound) {
		return store.Node{}, fmt.Errorf("%w: %.80q", ErrUnknownNode, name)
	}
	return node, err
}

// Touch records that the node has a session now. It writes to disk at most once per [TouchStep] and node.
// Errors: [ErrUnknownNode], [ErrRevoked].
func (a *Authority) Touch(id identity.ID) error {
	now := a.now()
	stale := false
	err := a.store.View(func(tx *store.Tx) error {
		node, err := a.admitted(tx, id)
		stale = now.Sub(node.LastSeen).Abs() >= TouchStep
		return err
	})
	if err != nil || !stale {
		return err
	}
	return a.store.Batch(func(tx *store.Tx) error {
		node, err := a.admitted(tx, id)
		if err != nil {
			return err
		}
		node.LastSeen = now
		return tx.PutNode(node)
	})
}

// Routes returns all routes on record, offered or approved or both, except those of revoked nodes.
func (a *Authority) Routes() (routes []store.Route, err error) {
	err = a.store.View(func(tx *store.Tx) error {
		all, err := tx.Routes()
		if err != nil {
			return err
		}
		routes = slices.DeleteFunc(all, func(route store.Route) bool {
			_, gone := a.admitted(tx, route.Node)
			return gone != nil
		})
		return nil
	})
	return routes, err
}

// OfferRoutes sets the whole list of subnets that the node offers now; what it offered before and does not
// any more is withdrawn. Approval outlives withdrawal. What the gateway itself offers is approved at once. An offer
// that changes nothing is not written to disk. It returns the node's routes. Errors: [ErrTooManyRoutes], [ErrPrefix],
// [ErrPrefixConflict], [ErrUnknownNode], [ErrRevoked].
func (a *Authority) OfferRoutes(id identity.ID, prefixes []netip.Prefix) (routes []store.Route, err error) {
	if len(prefixes) > MaxRoutes {
		return nil, fmt.Errorf("%w: %d instead of up to %d", ErrTooManyRoutes, len(prefixes), MaxRoutes)
	}
	for _, prefix := range prefixes {
		if err := a.checkRoute(prefix); err != nil {
			return nil, err
		}
	}
	known := false
	err = a.store.View(func(tx *store.Tx) (err error) {
		if _, err = a.admitted(tx, id); err != nil {
			return err
		}
		routes, err = tx.NodeRoutes(id)
		known = a.offersExactly(routes, id, prefixes)
		return err
	})
	if err != nil || known {
		return routes, err
	}
	err = a.store.Batch(func(tx *store.Tx) error {
		if _, err := a.admitted(tx, id); err != nil {
			return err
		}
		if err := a.offer(tx, id, prefixes); err != nil {
			return err
		}
		known, err := tx.NodeRoutes(id)
		routes = known
		return err
	})
	return routes, err
}

// offersExactly reports whether the routes on record say already that the node offers these prefixes and no others.
func (a *Authority) offersExactly(routes []store.Route, id identity.ID, prefixes []netip.Prefix) bool {
	offered := make(map[netip.Prefix]bool)
	for _, route := range routes {
		if !route.Offered.IsZero() {
			offered[route.Prefix] = id != a.network.Gateway || !route.Approved.IsZero()
		}
	}
	for _, prefix := range prefixes {
		if !offered[prefix] {
			return false
		}
	}
	for prefix := range offered {
		if !slices.Contains(prefixes, prefix) {
			return false
		}
	}
	return true
}

func (a *Authority) offer(tx *store.Tx, id identity.ID, prefixes []netip.Prefix) error {
	known, err := tx.NodeRoutes(id)
	if err != nil {
		return err
	}
	for _, route := range known {
		if slices.Contains(prefixes, route.Prefix) {
			continue
		}
		route.Offered = time.Time{}
		if route.Approved.IsZero() {
			err = tx.DeleteRoute(id, route.Prefix)
		} else {
			err = tx.PutRoute(route)
		}
		if err != nil {
			return err
		}
	}
	for _, prefix := range prefixes {
		route, err := routeOf(tx, id, prefix)
		if err != nil {
			return err
		}
		if route.Offered.IsZero() {
			route.Offered = a.now()
		}
		if id == a.network.Gateway && route.Approved.IsZero() {
			route.Approved = a.now()
		}
		if err := tx.PutRoute(route); err != nil {
			return err
		}
	}
	return nil
}

// ApproveRoute approves a subnet behind the node of the given name, whether it offers it now or later.
// Errors: [ErrUnknownNode], [ErrRevoked], [ErrPrefix], [ErrPrefixConflict].
func (a *Authority) ApproveRoute(name string, prefix netip.Prefix) (route store.Route, err error) {
	if err := a.checkRoute(prefix); err != nil {
		return store.Route{}, err
	}
	err = a.store.Update(func(tx *store.Tx) error {
		node, err := find(tx, name)
		if err != nil {
			return err
		}
		if _, err := a.admitted(tx, node.ID); err != nil {
			return err
		}
		route, err = a.approve(tx, node.ID, prefix)
		return err
	})
	return route, err
}

func (a *Authority) approve(tx *store.Tx, id identity.ID, prefix netip.Prefix) (store.Route, error) {
	route, err := routeOf(tx, id, prefix)
	if err != nil {
		return store.Route{}, err
	}
	if route.Approved.IsZero() {
		route.Approved = a.now()
	}
	return route, tx.PutRoute(route)
}

func routeOf(tx *store.Tx, id identity.ID, prefix netip.Prefix) (store.Route, error) {
	route, err := tx.Route(id, prefix)
	if errors.Is(err, store.ErrNotFound) {
		return store.Route{Node: id, Prefix: prefix}, nil
	}
	return route, err
}

// checkRoute refuses subnets that no node can stand for. One that contains the network's own prefix is fine,
// the default route among them: nodes' addresses are the longer match.
func (a *Authority) checkRoute(prefix netip.Prefix) error {
	if !prefix.IsValid() || prefix.Addr().Is4In6() || prefix.Addr().Zone() != "" {
		return fmt.Errorf("%w: %s is not a route", ErrPrefix, prefix)
	}
	if prefix != prefix.Masked() {
		return fmt.Errorf("%w: %s has bits set behind its length; %s is meant?", ErrPrefix, prefix, prefix.Masked())
	}
	if prefix.Bits() >= minBits && unusable(prefix) {
		return fmt.Errorf("%w: %s is reserved for another use", ErrPrefix, prefix)
	}
	for _, own := range a.network.Prefixes {
		if own.Contains(prefix.Addr()) && prefix.Bits() >= own.Bits() {
			return fmt.Errorf("%w: %s is part of the network's own %s", ErrPrefixConflict, prefix, own)
		}
	}
	return nil
}

package store

import (
	"fmt"
	"net/netip"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

// Route returns the route of the given node to the given subnet. Errors: [ErrNotFound].
func (tx *Tx) Route(node identity.ID, prefix netip.Prefix) (Route, error) {
	var route Route
	if err := tx.get(bucketRoutes, routeKey(node, prefix), &route); err != nil {
		return Route{}, fmt.Errorf("route %s of node %s: %w", prefix, node.Short(), err)
	}
	return route, nil
}

// Routes returns all routes, by node and prefix.
func (tx *Tx) Routes() ([]Route, error) { return tx.routes(nil) }

// NodeRoutes returns the routes of one node, by prefix.
func (tx *Tx) NodeRoutes(node identity.ID) ([]Route, error) { return tx.routes(node[:]) }

func (tx *Tx) routes(prefix []byte) ([]Route, error) {
	var routes []Route
	err := tx.each(bucketRoutes, prefix, func(_, value []byte) (bool, error) {
		var route Route
		if err := decode(bucketRoutes, value, &route); err != nil {
			return true, err
		}
		routes = append(routes, route)
		return false, nil
	})
	return routes, err
}

// PutRoute adds the route or replaces the one of the same node and subnet.
func (tx *Tx) PutRoute(route Route) error {
	if route.Node.IsZero() || !route.Prefix.IsValid() {
		return fmt.Errorf("put route without a node or prefix")
	}
	return tx.put(bucketRoutes, routeKey(route.Node, route.Prefix), route)
}

// DeleteRoute forgets the route, if there is one.
func (tx *Tx) DeleteRoute(node identity.ID, prefix netip.Prefix) error {
	return tx.remove(bucketRoutes, routeKey(node, prefix))
}

func routeKey(node identity.ID, prefix netip.Prefix) []byte {
	key := append(node[:], byte(prefix.Addr().BitLen()))
	key = append(key, prefix.Addr().AsSlice()...)
	return append(key, byte(prefix.Bits()))
}

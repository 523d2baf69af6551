package dataplane

import (
	"fmt"
	"net/netip"

	"github.com/aethertunnel/aethertunnel/dataplane/route"
)

// Snapshot is everything the engine knows about the network at one instant. It is a value: the caller does not change
// it after Apply.
type Snapshot struct {
	// NICAddresses are the addresses of our own NIC. The first of each family is the source of the ICMP errors that
	// peers get; there are none of a family without.
	NICAddresses []netip.Addr
	// NICPrefixes are the destinations that peers may reach through our NIC: our own addresses and granted LANs.
	NICPrefixes []netip.Prefix
	// NICSources are the source addresses that our own host may use towards peers. Empty: any, since what the
	// host's kernel forwards is the gateway's business; a member lists its assigned addresses and granted LANs.
	NICSources []netip.Prefix
	// Peers are the nodes we exchange packets with. A prefix belongs to one peer only.
	Peers []Peer
}

// Peer is one node's share of a snapshot.
type Peer struct {
	ID PeerID
	// Prefixes are the node's addresses and subnets: packets to them go to it, and it may send from no others.
	Prefixes []netip.Prefix
}

// routing is a compiled snapshot.
type routing struct {
	addr4, addr6 netip.Addr // sources of our ICMP errors, zero when we have none
	destinations *route.Table[destination]
	nicSources   *route.Table[struct{}] // nil: any
}

// destination is the NIC (peer nil) or a peer.
type destination struct{ peer *peer }

// Apply makes s the truth for every packet handled from now on. On error the previous snapshot stays. Peers that are
// not in s lose their counters and pass nothing more, what waits for them is dropped, and their Attach calls return
// ErrUnknownPeer.
func (e *Engine) Apply(s Snapshot) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	peers := make(map[PeerID]*peer, len(s.Peers))
	for _, p := range s.Peers {
		known := e.peers[p.ID]
		if known == nil {
			known = e.newPeer()
		}
		peers[p.ID] = known
	}
	r, err := compile(s, peers)
	if err != nil {
		return fmt.Errorf("apply snapshot: %w", err)
	}
	// Whoever is no longer listed is cut off before anything is sent by the new tables.
	for id, p := range e.peers {
		if peers[id] == nil {
			e.cutOffLocked(p)
		}
	}
	e.peers = peers
	e.current.Store(r)
	return nil
}

// compile makes the tables of a snapshot. It changes nothing.
func compile(s Snapshot, peers map[PeerID]*peer) (*routing, error) {
	r := &routing{}
	var entries []route.Entry[destination]
	for _, p := range s.Peers {
		for _, prefix := range p.Prefixes {
			entries = append(entries, route.Entry[destination]{Prefix: prefix, Value: destination{peers[p.ID]}})
		}
	}
	for _, prefix := range s.NICPrefixes {
		entries = append(entries, route.Entry[destination]{Prefix: prefix})
	}
	var err error
	if r.destinations, err = route.New(entries); err != nil {
		return nil, fmt.Errorf("destinations: %w", err)
	}
	if len(s.NICSources) > 0 {
		var sources []route.Entry[struct{}]
		for _, prefix := range s.NICSources {
			sources = append(sources, route.Entry[struct{}]{Prefix: prefix})
		}
		if r.nicSources, err = route.New(sources); err != nil {
			return nil, fmt.Errorf("sources of our own: %w", err)
		}
	}
	for _, a := range s.NICAddresses {
		if a = a.Unmap(); a.Is4() && !r.addr4.IsValid() {
			r.addr4 = a
		} else if a.Is6() && !r.addr6.IsValid() {
			r.addr6 = a
		}
	}
	return r, nil
}

// lookup finds where packets to a go; a nil table (no snapshot yet) knows nothing.
func (r *routing) lookup(a netip.Addr) (destination, bool) {
	if r.destinations == nil {
		return destination{}, false
	}
	return r.destinations.Lookup(a)
}

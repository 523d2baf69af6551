package dataplane

import (
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
)

// way is how a lane's packets get to the peer: it does not change, another takes its place.
type way struct {
	to *udp.Destination
	id lane.ConnectionID
}

// pathEnds are the ends of a lane's paths at the peer, each with a connection ID of its own, so that who sees two paths
// does not see by the connection ID that they are the same lane's (RFC 9000 section 9.5).
type pathEnds struct {
	l      *Lane
	of     [path.MaxPaths]pathEnd // by the validation's index
	active int                    // index of the path in use
	spare  []lane.IssuedID        // never used, in the order of their numbers

	retired []uint32 // sequence numbers that control has not heard of yet
}

// pathEnd is the end of one path.
type pathEnd struct {
	to     *udp.Destination
	issued lane.IssuedID // the connection ID, if own
	own    bool          // it is this path's; else packets go by that of the path in use
	worn   bool          // another path had it before
}

// begin makes the session's path the first.
func (e *pathEnds) begin(to *udp.Destination, ids []lane.IssuedID) {
	e.spare = append(e.spare, ids...)
	e.of[0].to = to
	e.identify(0)
	e.use(0)
}

// use makes a path the one in use.
func (e *pathEnds) use(index int) {
	end, before := &e.of[index], &e.of[e.active]
	if !end.own && end != before {
		end.issued, end.own, end.worn = before.issued, before.own, true
		before.own = false
	}
	e.active = index
	e.l.way.Store(e.way(end))
}

// issue takes in connection IDs that the peer has issued.
func (e *pathEnds) issue(ids []lane.IssuedID) {
	e.spare = append(e.spare, ids...)
	if e.of[e.active].worn {
		e.renew()
	}
}

// renew gives the path in use a new connection ID, if there is one.
func (e *pathEnds) renew() {
	e.identify(e.active)
	e.use(e.active)
}

// at returns the end of the path with an index, made anew if the index belonged to another, or nil if the socket cannot
// send there.
func (e *pathEnds) at(index int, a path.Address) *pathEnd {
	end := &e.of[index]
	if d := end.to; d != nil && addressOf(d) == a {
		return end
	}
	to, err := e.l.conn.NewDestination(a.Remote, a.Local, a.InterfaceIndex)
	if err != nil {
		return nil // another IP version than the socket's: nothing could have come from there
	}
	e.retire(index)
	end.to = to
	e.identify(index)
	return end
}

// way returns how packets go on a path.
func (e *pathEnds) way(end *pathEnd) *way {
	if end.own {
		return &way{end.to, end.issued.ID}
	}
	return &way{end.to, e.of[e.active].issued.ID}
}

// restart forgets all paths but the one in use, which is the first from now on and goes to another destination.
func (e *pathEnds) restart(to *udp.Destination) {
	for i := range e.of {
		if i != e.active {
			e.retire(i)
		}
	}
	e.of[0], e.of[e.active] = e.of[e.active], e.of[0]
	e.active, e.of[0].to = 0, to
	e.use(0)
}

// identify gives a path a connection ID that no other has had. With none left it has that of the path in use.
func (e *pathEnds) identify(index int) {
	end := &e.of[index]
	if len(e.spare) == 0 || e.l.over.Load() {
		return
	}
	e.retireID(end)
	end.issued, end.own, end.worn = e.spare[0], true, false
	e.spare = e.spare[1:]
	e.l.engine.resets.add(end.issued.Token, e.l)
}

// retire forgets a path.
func (e *pathEnds) retire(index int) {
	e.retireID(&e.of[index])
	e.of[index] = pathEnd{}
}

// retireID takes a path's connection ID out of use, for good.
func (e *pathEnds) retireID(end *pathEnd) {
	if end.own {
		end.own = false
		e.l.engine.resets.remove(end.issued.Token)
		e.retired = append(e.retired, end.issued.Sequence)
	}
}

// close makes the lane deaf to resets: it is over.
func (e *pathEnds) close() {
	for i := range e.of {
		e.retireID(&e.of[i])
	}
}

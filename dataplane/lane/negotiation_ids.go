package lane

// idState holds the connection IDs of both sides.
type idState struct {
	own     []IssuedID // that the peer may use
	ownNext uint32     // next sequence number
	leaving []leavingID

	peer     []peerID
	peerNext uint32 // above every sequence number that the peer has issued
}

// leavingID is one that the peer has retired, with packets perhaps still under way.
type leavingID struct {
	id    ConnectionID
	until int64
}

// maxLeaving bounds what a peer can make us keep by retiring.
const maxLeaving = 2 * ConnectionIDs

// peerID is one that the peer has issued.
type peerID struct {
	IssuedID
	retired bool
}

// refill issues connection IDs up to the full number.
func (n *Negotiation) refill() {
	for s := &n.ids; len(s.own) < ConnectionIDs; s.ownNext++ {
		id, token := n.config.Issue()
		s.own = append(s.own, IssuedID{Sequence: s.ownNext, ID: id, Token: token})
		n.emit(Event{Kind: EventIssue, ID: id})
	}
}

// firstIDs issues those of an offer or accept.
func (n *Negotiation) firstIDs() [ConnectionIDs]IssuedID {
	n.refill()
	return [ConnectionIDs]IssuedID(n.ids.own)
}

// begin takes the peer's first connection IDs.
func (s *idState) begin(ids *[ConnectionIDs]IssuedID) {
	for i := range ids {
		s.peer = append(s.peer, peerID{IssuedID: ids[i]})
	}
	s.peerNext = ConnectionIDs
}

// RetirePeerID says that a connection ID of the peer will not be used any more. The peer hears of it at the next
// ratchet. It reports whether there was such an ID.
func (n *Negotiation) RetirePeerID(sequence uint32) bool {
	for i := range n.ids.peer {
		if p := &n.ids.peer[i]; p.Sequence == sequence && !p.retired {
			p.retired = true
			return true
		}
	}
	return false
}

// renewal says what there is to say about connection IDs.
func (n *Negotiation) renewal() Renewal {
	n.refill()
	var r Renewal
	for i := range n.ids.peer {
		if n.ids.peer[i].retired {
			r.Retired = append(r.Retired, n.ids.peer[i].Sequence)
		}
	}
	r.Issued = append(r.Issued, n.ids.own...)
	return r
}

// applyRenewal takes the peer's word and reports whether it may be.
func (n *Negotiation) applyRenewal(r *Renewal) bool {
	for _, sequence := range r.Retired {
		if sequence >= n.ids.ownNext {
			return false
		}
		n.retireOwn(sequence)
	}
	s := &n.ids
	var added []IssuedID
	fresh := make([]peerID, 0, ConnectionIDs)
	for _, issued := range r.Issued {
		known := s.find(issued.Sequence)
		switch {
		case known != nil && known.IssuedID == issued:
			fresh = append(fresh, *known)
		case issued.Sequence >= s.peerNext && !s.named(issued.ID):
			fresh, added = append(fresh, peerID{IssuedID: issued}), append(added, issued)
		default:
			return false
		}
	}
	for i := range s.peer {
		if !s.peer[i].retired && !listed(fresh, s.peer[i].Sequence) {
			return false // withdrawn while it may be in use
		}
	}
	s.peer = fresh
	s.peerNext = max(s.peerNext, fresh[len(fresh)-1].Sequence+1)
	if len(added) > 0 {
		n.emit(Event{Kind: EventPeerIDs, PeerIDs: added})
	}
	return true
}

func (s *idState) find(sequence uint32) *peerID {
	for i := range s.peer {
		if s.peer[i].Sequence == sequence {
			return &s.peer[i]
		}
	}
	return nil
}

// named reports whether the peer has issued the same connection ID under another number.
func (s *idState) named(id ConnectionID) bool {
	for i := range s.peer {
		if s.peer[i].ID == id {
			return true
		}
	}
	return false
}

func listed(list []peerID, sequence uint32) bool {
	for i := range list {
		if list[i].Sequence == sequence {
			return true
		}
	}
	return false
}

// retireOwn takes one of this side's connection IDs out of use. It was retired before if it is not there.
func (n *Negotiation) retireOwn(sequence uint32) {
	s := &n.ids
	for i := range s.own {
		if s.own[i].Sequence != sequence {
			continue
		}
		if len(s.leaving) == maxLeaving {
			n.emit(Event{Kind: EventRetire, ID: s.leaving[0].id})
			s.leaving = append(s.leaving[:0], s.leaving[1:]...)
		}
		s.leaving = append(s.leaving, leavingID{id: s.own[i].ID, until: n.nowNanos + int64(KeepFor)})
		s.own = append(s.own[:i], s.own[i+1:]...)
		return
	}
}

// expireIDs drops those whose time is over.
func (n *Negotiation) expireIDs() {
	s := &n.ids
	for len(s.leaving) > 0 && n.nowNanos >= s.leaving[0].until {
		n.emit(Event{Kind: EventRetire, ID: s.leaving[0].id})
		s.leaving = append(s.leaving[:0], s.leaving[1:]...)
	}
}

package lane

import "math"

// Tick does what time requires. It is to be called at [Negotiation.NextTick], or later.
func (n *Negotiation) Tick(now int64) Output {
	n.advance(now)
	return n.take()
}

// NextTick returns when Tick has something to do, math.MaxInt64 for never. Every other call may change it.
func (n *Negotiation) NextTick() int64 {
	next := int64(math.MaxInt64)
	at := func(nanos int64) {
		if nanos != 0 {
			next = min(next, nanos)
		}
	}
	if n.stage == stageClosed {
		return next
	}
	at(n.deadline)
	e := &n.epochs
	if e.previous != nil {
		at(e.wipePrevious)
		at(e.previous.openUntil)
	}
	if e.current != nil {
		at(e.current.openUntil)
		if e.sealing {
			at(e.current.sealUntil)
		}
		at(e.pingAt)
	} else if e.next != nil {
		at(e.next.openUntil)
	}
	if len(n.ids.leaving) > 0 {
		at(n.ids.leaving[0].until)
	}
	return min(next, n.ratchetDue())
}

// advance brings the lane to the present. A clock that goes backwards stands still here.
func (n *Negotiation) advance(now int64) {
	n.nowNanos = max(n.nowNanos, now)
	if n.stage == stageClosed {
		return
	}
	if n.deadline != 0 && n.nowNanos >= n.deadline {
		n.expireAnswer()
	}
	n.expireIDs()
	n.expireEpochs()
	if n.stage != stageLive {
		return
	}
	if n.ratchetDue() <= n.nowNanos {
		n.startRatchet()
	}
	if e := &n.epochs; e.pingAt != 0 && n.nowNanos >= e.pingAt {
		n.emitPing()
		e.pingAfter = min(2*e.pingAfter, int64(maxPingAfter))
		e.pingAt = n.nowNanos + e.pingAfter
	}
}

// expireAnswer gives an offer or a request to adopt up.
func (n *Negotiation) expireAnswer() {
	n.deadline = 0
	if n.stage == stageOffered {
		n.close(ReasonTimeout, false)
		return
	}
	n.failAdoption()
}

func (n *Negotiation) expireEpochs() {
	e := &n.epochs
	if p := e.previous; p != nil &&
		(n.nowNanos >= p.openUntil || e.wipePrevious != 0 && n.nowNanos >= e.wipePrevious) {
		n.wipe(p)
		e.previous, e.wipePrevious = nil, 0
	}
	if e.current != nil && n.nowNanos >= e.current.sealUntil {
		n.sealStop()
		e.pingAt = 0
	}
	oldest := e.current
	if oldest == nil {
		oldest = e.next
	}
	if oldest != nil && n.nowNanos >= oldest.openUntil {
		n.close(ReasonExpired, true)
	}
}

// Close ends the lane at once and tells the peer, if there is a session to tell it over.
func (n *Negotiation) Close(reason Reason, now int64) Output {
	n.nowNanos = max(n.nowNanos, now)
	n.close(reason, true)
	return n.take()
}

// Drop ends the lane at once and says nothing: the peer does not know it any more, or does the same.
func (n *Negotiation) Drop(reason Reason, now int64) Output {
	n.nowNanos = max(n.nowNanos, now)
	n.close(reason, false)
	return n.take()
}

// close wipes everything. tell sends the reason to the peer.
func (n *Negotiation) close(reason Reason, tell bool) {
	if n.stage == stageClosed {
		return
	}
	if tell && n.stage == stageLive && n.session != nil {
		n.send(n.session, &Close{Number: n.config.Number, Lane: n.id, Reason: reason})
	}
	n.stage = stageClosed
	n.unbind()
	if n.offerKey != nil {
		n.offerKey.Wipe()
	}
	n.offerKey, n.offer = nil, nil
	for _, e := range []*epoch{n.epochs.previous, n.epochs.current, n.epochs.next} {
		if e != nil {
			e.chain.Wipe()
		}
	}
	n.epochs, n.ids = epochs{}, idState{}
	n.emit(Event{Kind: EventClosed, Reason: reason})
}

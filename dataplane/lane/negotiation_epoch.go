package lane

import (
	"fmt"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// epoch is one link of the chain.
type epoch struct {
	number uint32
	chain  *keyschedule.Chain
	seal   *aead.PacketKey
	// bornNanos is when the message that began it was sent by this side: the client's offer or request, the server's
	// accept or answer.
	bornNanos int64
	// sealUntil and openUntil end the epoch. The client counts from its request when it seals and from the answer when
	// it opens, the server from its answer for both: however long the messages take, what one side may still seal the
	// other can still open.
	sealUntil, openUntil int64
}

// epochs are those that have keys. next is at the server alone: installed for opening, not sealing until the client
// has shown that it has it. previous is kept for packets under way.
type epochs struct {
	previous, current, next *epoch
	// wipePrevious is when previous goes; 0 while the peer may still seal with it.
	wipePrevious int64
	// confirmed says that the peer is known to have current.
	confirmed bool
	sealing   bool
	// pingAt is when to ping again, 0 for not at all, and pingAfter the time to the one after.
	pingAt, pingAfter int64
}

func (n *Negotiation) newEpoch(chain *keyschedule.Chain) *epoch {
	born := n.ratchet.sentNanos
	return &epoch{
		number: chain.Epoch(), chain: chain, bornNanos: born,
		sealUntil: born + int64(SealFor), openUntil: n.nowNanos + int64(SealFor+KeepFor),
	}
}

// install hands the keys of e out.
func (n *Negotiation) install(e *epoch) error {
	open, err := e.chain.PacketKey(n.config.Number, n.side.Peer(), n.suite)
	if err != nil {
		return fmt.Errorf("epoch %d: %w: %w", e.number, ErrInternal, err)
	}
	if e.seal, err = e.chain.PacketKey(n.config.Number, n.side, n.suite); err != nil {
		return fmt.Errorf("epoch %d: %w: %w", e.number, ErrInternal, err)
	}
	n.emit(Event{Kind: EventInstall, Epoch: e.number, Open: open, Seal: e.seal})
	return nil
}

// seal hands the sealing key of the current epoch out, if its time is not over.
func (n *Negotiation) seal() {
	e := n.epochs.current
	if n.nowNanos >= e.sealUntil {
		n.sealStop()
		return
	}
	n.epochs.sealing = true
	n.emit(Event{Kind: EventSeal, Epoch: e.number, Seal: e.seal})
}

func (n *Negotiation) sealStop() {
	if n.epochs.sealing {
		n.epochs.sealing = false
		n.emit(Event{Kind: EventSealStop})
	}
}

// wipe forgets an epoch. It takes nil.
func (n *Negotiation) wipe(e *epoch) {
	if e == nil {
		return
	}
	e.chain.Wipe()
	n.emit(Event{Kind: EventWipe, Epoch: e.number})
}

// advanceTo makes next the current epoch. What was current stays for opening alone: its chain goes now, its keys when
// [KeepFor] is over.
func (n *Negotiation) advanceTo(next *epoch) {
	e := &n.epochs
	n.wipe(e.previous)
	e.previous, e.wipePrevious = e.current, 0
	if e.previous != nil {
		e.previous.chain.Wipe()
		e.previous.seal = nil
	}
	e.current, e.next, e.confirmed = next, nil, false
	n.ratchet.baseSealed, n.ratchet.baseOpened = n.ratchet.sealed, n.ratchet.opened
}

func (n *Negotiation) startPing() {
	n.emitPing()
	n.epochs.pingAfter = int64(firstPingAfter)
	n.epochs.pingAt = n.nowNanos + n.epochs.pingAfter
}

// Opened says that the first packet of an epoch has been opened. Calling it again for the same epoch does nothing. At
// the server it moves sealing to the epoch.
func (n *Negotiation) Opened(number uint32, now int64) Output {
	n.advance(now)
	if n.stage != stageLive {
		return n.take()
	}
	e := &n.epochs
	switch {
	case e.next != nil && e.next.number == number:
		n.confirmNext()
	case e.current != nil && e.current.number == number && !e.confirmed:
		n.confirm()
	}
	return n.take()
}

// confirmNext moves the server on to the epoch that the client has shown to have, by a PING that is answered in it.
func (n *Negotiation) confirmNext() {
	n.advanceTo(n.epochs.next)
	n.confirm()
	n.ratchet.answered, n.accept = nil, nil
	n.seal()
}

// emitPing asks for a packet that is to be on its way at once.
func (n *Negotiation) emitPing() {
	if n.epochs.sealing {
		n.emit(Event{Kind: EventPing, Epoch: n.epochs.current.number})
	}
}

func (n *Negotiation) confirm() {
	e := &n.epochs
	e.confirmed, e.pingAt = true, 0
	if e.previous != nil {
		e.wipePrevious = n.nowNanos + int64(KeepFor)
	}
}

// held returns the epochs that the lane can go on with.
func (e *epochs) held() []*epoch {
	var list []*epoch
	for _, c := range []*epoch{e.current, e.next} {
		if c != nil {
			list = append(list, c)
		}
	}
	return list
}

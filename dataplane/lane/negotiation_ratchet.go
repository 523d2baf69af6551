package lane

import (
	"crypto/sha256"
	"fmt"
	"math"

	"github.com/aethertunnel/aethertunnel/crypto/kem"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// ratchetState is about the step from one epoch to the next.
type ratchetState struct {
	// sealed and opened are what Progress was told last, base* what they were at the beginning of the current epoch.
	sealed, opened, baseSealed, baseOpened uint64

	// At the client, while a request is out.
	key     *kem.PrivateKey
	request []byte
	epoch   uint32
	// sentNanos is when the offer, the request, the accept or the answer was sent.
	sentNanos int64

	// At the server, until the client has shown that it has the answer.
	answered []byte
	hash     [sha256.Size]byte // of the request
	// tokens are the ratchets that the client may still ask for, as of refilledNanos.
	tokens        int64
	refilledNanos int64
}

// Progress tells how far the packet numbers of the lane are: sealed is the next number of this side, opened one more
// than the highest number opened. Calling it every second or so is enough, for a key may seal twice as many packets as
// it takes to begin a ratchet.
func (n *Negotiation) Progress(sealed, opened uint64, now int64) Output {
	n.ratchet.sealed = max(n.ratchet.sealed, sealed)
	n.ratchet.opened = max(n.ratchet.opened, opened)
	n.advance(now)
	return n.take()
}

// ratchetDue says when the next ratchet is to begin: now if packets demand it, math.MaxInt64 if it must not.
func (n *Negotiation) ratchetDue() int64 {
	e, r := &n.epochs, &n.ratchet
	if n.stage != stageLive || n.session == nil || n.session.Role != keyschedule.Client || n.adopt.pending ||
		r.key != nil || e.current == nil || !e.confirmed {
		return math.MaxInt64
	}
	if n.adopt.mix != nil {
		return n.nowNanos // at once after an adoption
	}
	if e.previous != nil {
		return max(e.wipePrevious, n.nowNanos)
	}
	if half := n.limit / 2; r.sealed-r.baseSealed >= half || r.opened-r.baseOpened >= half {
		return n.nowNanos
	}
	return e.current.bornNanos + int64(RatchetAfter)
}

// startRatchet asks for the next epoch.
func (n *Negotiation) startRatchet() {
	if n.epochs.current.number == math.MaxUint32 {
		n.close(ReasonExpired, true) // there is no further epoch
		return
	}
	key, err := kem.Generate()
	if err != nil {
		n.close(ReasonInternal, true)
		return
	}
	r := &n.ratchet
	r.key, r.epoch, r.sentNanos = key, n.epochs.current.number+1, n.nowNanos
	m := RatchetRequest{Number: n.config.Number, Lane: n.id, Epoch: r.epoch, Renewal: n.renewal()}
	copy(m.PublicKey[:], key.Public())
	r.request = n.send(n.session, &m)
}

// abortRatchet forgets a request that will not be answered.
func (n *Negotiation) abortRatchet() {
	if n.ratchet.key != nil {
		n.ratchet.key.Wipe()
	}
	n.ratchet.key, n.ratchet.request, n.ratchet.answered = nil, nil, nil
}

// violation closes the lane because the peer broke the protocol.
func (n *Negotiation) violation(what string, args ...any) error {
	n.close(ReasonProtocol, true)
	return fmt.Errorf("%s: %w", fmt.Sprintf(what, args...), ErrViolation)
}

// onRatchetRequest installs the next epoch at the server, then answers.
func (n *Negotiation) onRatchetRequest(m *RatchetRequest, payload []byte) error {
	r, hash := &n.ratchet, sha256.Sum256(payload)
	if n.session.Role != keyschedule.Server {
		return n.violation("ratchet request from a server")
	}
	if r.answered != nil && hash == r.hash {
		n.resend(n.session, r.answered)
		return nil
	}
	if next := n.epochs.next; next != nil && uint64(m.Epoch) == uint64(next.number)+1 {
		// Only who has opened a packet of an epoch asks for the one after, so the dataplane has switched already and its
		// word is still on the way.
		n.confirmNext()
	}
	current := n.epochs.current
	if current != nil && m.Epoch <= current.number {
		return ErrIgnored
	}
	if current == nil || n.epochs.next != nil || m.Epoch != current.number+1 {
		return n.violation("ratchet request for epoch %d", m.Epoch)
	}
	if !n.allowRatchet() {
		n.close(ReasonExcessive, true)
		return fmt.Errorf("ratchet request for epoch %d: too many: %w", m.Epoch, ErrViolation)
	}
	return n.answerRatchet(m, payload, hash)
}

func (n *Negotiation) answerRatchet(m *RatchetRequest, payload []byte, hash [sha256.Size]byte) error {
	if !n.applyRenewal(&m.Renewal) {
		return n.violation("connection IDs of a ratchet request")
	}
	ciphertext, shared, err := kem.Encapsulate(m.PublicKey[:])
	if err != nil {
		return n.violation("public key of a ratchet request: %v", err)
	}
	defer shared.Wipe()
	answer := RatchetAnswer{Number: n.config.Number, Lane: n.id, Epoch: m.Epoch, Renewal: n.renewal()}
	copy(answer.Ciphertext[:], ciphertext)
	n.ratchet.sentNanos = n.nowNanos
	answered := answer.Append(nil)
	next, err := n.nextEpoch(shared, payload, answered)
	if err != nil {
		n.close(ReasonInternal, true)
		return err
	}
	n.epochs.next = next
	n.ratchet.answered, n.ratchet.hash = answered, hash
	n.resend(n.session, answered)
	return nil
}

// onRatchetAnswer switches the client to the epoch that it has asked for.
func (n *Negotiation) onRatchetAnswer(m *RatchetAnswer, payload []byte) error {
	r := &n.ratchet
	if r.key == nil || m.Epoch != r.epoch {
		return ErrIgnored
	}
	if !n.applyRenewal(&m.Renewal) {
		return n.violation("connection IDs of a ratchet answer")
	}
	shared, err := r.key.Decapsulate(m.Ciphertext[:])
	if err != nil {
		return n.violation("ciphertext of a ratchet answer: %v", err)
	}
	defer shared.Wipe()
	next, err := n.nextEpoch(shared, r.request, payload)
	if err != nil {
		n.close(ReasonInternal, true)
		return err
	}
	n.abortRatchet()
	n.advanceTo(next)
	n.seal()
	n.startPing()
	return nil
}

// nextEpoch derives the epoch after the current one and installs it for opening.
func (n *Negotiation) nextEpoch(shared kem.Shared, request, answer []byte) (*epoch, error) {
	chain, err := n.epochs.current.chain.Next(keyschedule.Step{
		Shared: shared, Request: request, Answer: answer, Adopting: n.adopt.mix,
	})
	if err != nil {
		return nil, fmt.Errorf("ratchet: %w: %w", ErrInternal, err)
	}
	n.adopt.forget()
	e := n.newEpoch(chain)
	return e, n.install(e)
}

// allowRatchet takes one of the client's ratchets.
func (n *Negotiation) allowRatchet() bool {
	r := &n.ratchet
	if refill := (n.nowNanos - r.refilledNanos) / int64(ratchetRefill); refill > 0 {
		r.tokens = min(r.tokens+refill, ratchetBurst)
		r.refilledNanos += refill * int64(ratchetRefill)
	}
	if r.tokens == 0 {
		return false
	}
	r.tokens--
	return true
}

package lane

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// adoptState is about moving a lane to a new session.
type adoptState struct {
	pending bool                  // this side has asked over n.session
	failed  bool                  // a new lane is to be made
	mix     *keyschedule.Exporter // for the first ratchet after an adoption
	value   *keyschedule.Exporter // while pending

	// attempt is the highest that was made or taken, and ours whether this side made it.
	attempt uint32
	ours    bool
	// retries are those that an answer of [AdoptStale] may still lead to.
	retries int
}

// maxRetries bounds what a peer can lead us to with stale answers.
const maxRetries = 3

// later reports whether a request of the peer comes after all that are known. Of two with one number, made at the same
// time, that of the greater node id does.
func (n *Negotiation) later(attempt uint32) bool {
	a := &n.adopt
	if attempt == a.attempt && a.ours {
		return bytes.Compare(n.config.Peer[:], n.config.Local[:]) > 0
	}
	return attempt > a.attempt
}

func (a *adoptState) forget() {
	if a.mix != nil {
		clear(a.mix[:])
		a.mix = nil
	}
}

// adoptContext separates the exporter values of adoptions from those of offers.
const adoptContext = "adopt"

// SessionEnded says that a session is over. orderly is the end by FIN or H3_NO_ERROR, which ends its lanes; everything
// else is a loss, which the lane outlives for as long as its current epoch may seal. For another session than the
// one that the lane is bound to nothing happens.
func (n *Negotiation) SessionEnded(session *Session, orderly bool, now int64) Output {
	n.advance(now)
	if session == nil || session != n.session || n.stage == stageClosed {
		return n.take()
	}
	switch {
	case orderly:
		n.close(ReasonSessionEnded, false)
	case n.stage == stageLive:
		n.unbind()
	default:
		n.close(ReasonSessionLost, false)
	}
	return n.take()
}

// unbind makes the lane one without a session.
func (n *Negotiation) unbind() {
	n.abortRatchet()
	n.adopt.forget()
	n.adopt.pending, n.adopt.value, n.deadline = false, nil, 0
	n.session, n.accept = nil, nil
}

// Resume asks the peer to go on with the lane over a new session whose client this side is. It is [ErrIgnored] for a
// lane that is bound to a session, is not live, does not seal any more or has failed to be adopted: make a new lane
// then, and [Negotiation.Drop] this one once the new one carries packets.
func (n *Negotiation) Resume(session *Session, now int64) (Output, error) {
	n.advance(now)
	if n.stage != stageLive || n.session != nil || n.adopt.failed || session == nil ||
		session.Role != keyschedule.Client {
		return n.take(), ErrIgnored
	}
	n.adopt.retries = maxRetries
	err := n.requestAdoption(session)
	return n.take(), err
}

func (n *Negotiation) requestAdoption(session *Session) error {
	value, err := n.adoptValue(session)
	if err != nil {
		return err
	}
	proofs, err := n.proofs(value)
	if err != nil {
		return err
	}
	if len(proofs) == 0 || n.adopt.attempt == math.MaxUint32 {
		return ErrIgnored
	}
	n.adopt.attempt, n.adopt.ours = n.adopt.attempt+1, true
	n.session, n.adopt.pending, n.adopt.value = session, true, value
	n.deadline = n.nowNanos + int64(AnswerWithin)
	n.send(session, &AdoptRequest{Number: n.config.Number, Lane: n.id, Attempt: n.adopt.attempt, Proofs: proofs})
	return nil
}

// adoptValue is the new session's exporter value for this lane.
func (n *Negotiation) adoptValue(session *Session) (*keyschedule.Exporter, error) {
	return session.exporter(sha256.Sum256(append([]byte(adoptContext), n.id[:]...)))
}

// proofs are for the epochs that may still seal.
func (n *Negotiation) proofs(value *keyschedule.Exporter) ([]Proof, error) {
	var list []Proof
	for _, e := range n.epochs.held() {
		if n.nowNanos >= e.sealUntil {
			continue
		}
		mac, err := e.chain.AdoptMAC(n.side, value, n.id[:])
		if err != nil {
			return nil, fmt.Errorf("adopt: %w: %w", ErrInternal, err)
		}
		list = append(list, Proof{Epoch: e.number, MAC: mac})
	}
	return list, nil
}

// common returns the highest epoch that is in both lists, or nil if there is none or if a proof of one is wrong.
func (n *Negotiation) common(theirs []Proof, value *keyschedule.Exporter) *epoch {
	var highest *epoch
	for _, e := range n.epochs.held() { // ascending
		for i := range theirs {
			if theirs[i].Epoch != e.number || n.nowNanos >= e.sealUntil {
				continue
			}
			if !e.chain.CheckAdoptMAC(n.side.Peer(), value, n.id[:], theirs[i].MAC[:]) {
				return nil
			}
			highest = e
		}
	}
	return highest
}

// onAdoptRequest moves the lane to the session from which the request came, whatever it was bound to: the peer knows
// that an earlier session is gone, and this side may learn it only when it times out.
func (n *Negotiation) onAdoptRequest(from *Session, m *AdoptRequest) error {
	answer := AdoptAnswer{Number: m.Number, Lane: m.Lane, Status: AdoptUnknown}
	if from.Role != keyschedule.Server {
		return fmt.Errorf("adopt request from a server: %w", ErrIgnored)
	}
	if n.stage != stageLive || m.Lane != n.id {
		n.send(from, &answer)
		return ErrIgnored
	}
	if from == n.session {
		return ErrIgnored
	}
	if !n.later(m.Attempt) {
		answer.Status, answer.Attempt = AdoptStale, n.adopt.attempt
		n.send(from, &answer)
		return nil
	}
	n.unbind()
	n.adopt.attempt, n.adopt.ours = m.Attempt, false
	value, err := n.adoptValue(from)
	if err != nil {
		return n.adoptionFailed(from, err)
	}
	proofs, err := n.proofs(value)
	if err != nil {
		return n.adoptionFailed(from, err)
	}
	winner := n.common(m.Proofs, value)
	if winner == nil || n.adopt.failed {
		return n.adoptionFailed(from, nil)
	}
	n.session = from
	n.adoptWith(winner, value)
	answer.Status, answer.Attempt, answer.Proofs = AdoptDone, m.Attempt, proofs
	n.send(from, &answer)
	return nil
}

// adoptionFailed leaves the lane without a session, to be replaced.
func (n *Negotiation) adoptionFailed(from *Session, err error) error {
	n.send(from, &AdoptAnswer{Number: n.config.Number, Lane: n.id, Status: AdoptFailed, Attempt: n.adopt.attempt})
	n.failAdoption()
	return err
}

func (n *Negotiation) failAdoption() {
	n.unbind()
	n.adopt.failed = true
	n.emit(Event{Kind: EventAdoptionFailed})
}

// onAdoptAnswer ends what Resume began.
func (n *Negotiation) onAdoptAnswer(m *AdoptAnswer) error {
	if !n.adopt.pending {
		return ErrIgnored
	}
	switch m.Status {
	case AdoptDone:
		value := n.adopt.value
		winner := n.common(m.Proofs, value)
		if winner == nil {
			n.failAdoption()
			return nil
		}
		n.adopt.pending, n.adopt.value, n.deadline = false, nil, 0
		n.adoptWith(winner, value)
		n.advance(n.nowNanos) // the ratchet follows at once
	case AdoptStale:
		return n.retryAdoption(m.Attempt)
	case AdoptUnknown:
		n.failAdoption()
		n.close(ReasonUnknownLane, false)
	case AdoptFailed:
		n.failAdoption()
	}
	return nil
}

// retryAdoption asks again with a number that comes after the peer's.
func (n *Negotiation) retryAdoption(attempt uint32) error {
	session := n.session
	n.unbind()
	if n.adopt.retries == 0 || attempt < n.adopt.attempt {
		n.failAdoption()
		return nil
	}
	n.adopt.retries--
	n.adopt.attempt = attempt
	if err := n.requestAdoption(session); err != nil {
		n.failAdoption()
		return err
	}
	return nil
}

// adoptWith goes on with an epoch that both sides have shown to hold.
func (n *Negotiation) adoptWith(winner *epoch, value *keyschedule.Exporter) {
	e := &n.epochs
	n.emit(Event{Kind: EventAdopted, Epoch: winner.number})
	before := e.current
	if e.next != nil && winner != e.next {
		n.wipe(e.next)
		e.next = nil
	}
	if winner != before {
		n.advanceTo(winner)
	}
	n.adopt.mix = value
	n.confirm()
	n.seal()
}

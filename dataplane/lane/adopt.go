package lane

import (
	"encoding/binary"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// maxProofs bounds the list of epochs: the current one, and the next one at the side that has answered a ratchet.
const maxProofs = 2

// Proof shows that its sender holds the chain of an epoch, and that it does so at the end of this very session.
type Proof struct {
	Epoch uint32
	MAC   [keyschedule.SecretBytes]byte
}

// AdoptRequest asks the other side to go on with a lane over this session. Only the client of the session sends it.
type AdoptRequest struct {
	Number uint8
	Lane   ID
	// Attempt counts the requests of both sides for this lane: each has one more than the highest its sender has seen.
	// A request that was overtaken by a later one, over another session, so moves nothing.
	Attempt uint32
	// Proofs are for every epoch that the sender can go on with, ascending.
	Proofs []Proof
}

// Append appends the message.
func (a *AdoptRequest) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindAdoptRequest, a.Number, a.Lane)
	dst = binary.BigEndian.AppendUint32(dst, a.Attempt)
	return appendProofs(dst, a.Proofs)
}

func (d *decoder) adoptRequest(h Header) *AdoptRequest {
	a := &AdoptRequest{Number: h.Number, Lane: h.ID, Attempt: d.u32()}
	d.check(a.Attempt > 0)
	a.Proofs = d.proofs(1)
	return a
}

// AdoptStatus is the outcome of an adoption.
type AdoptStatus uint8

// The outcomes.
const (
	// AdoptDone says that the lane is bound to this session.
	AdoptDone AdoptStatus = 0
	// AdoptUnknown says that there is no such lane: packets on it are lost.
	AdoptUnknown AdoptStatus = 1
	// AdoptFailed says that no epoch is common to both, or that a proof is wrong.
	AdoptFailed AdoptStatus = 2
	// AdoptStale says that the answering side has made or answered a later request.
	AdoptStale AdoptStatus = 3
)

// AdoptAnswer answers an [AdoptRequest].
type AdoptAnswer struct {
	Number uint8
	Lane   ID
	Status AdoptStatus
	// Attempt is the highest that the sender has seen or made, 0 if Status is [AdoptUnknown].
	Attempt uint32
	// Proofs are for every epoch that the sender could go on with when the request came, ascending; none unless Status is
	// [AdoptDone].
	Proofs []Proof
}

// Append appends the message.
func (a *AdoptAnswer) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindAdoptAnswer, a.Number, a.Lane)
	dst = binary.BigEndian.AppendUint32(append(dst, byte(a.Status)), a.Attempt)
	return appendProofs(dst, a.Proofs)
}

func (d *decoder) adoptAnswer(h Header) *AdoptAnswer {
	a := &AdoptAnswer{Number: h.Number, Lane: h.ID, Status: AdoptStatus(d.u8()), Attempt: d.u32()}
	d.check(a.Status <= AdoptStale && (a.Status == AdoptUnknown) == (a.Attempt == 0))
	a.Proofs = d.proofs(0)
	d.check((a.Status == AdoptDone) == (len(a.Proofs) > 0))
	return a
}

func (d *decoder) proofs(least int) []Proof {
	var list []Proof
	next := uint64(0)
	for range d.count(least, maxProofs) {
		p := Proof{Epoch: d.u32()}
		d.fill(p.MAC[:])
		d.check(uint64(p.Epoch) >= next)
		list, next = append(list, p), uint64(p.Epoch)+1
	}
	return list
}

func appendProofs(dst []byte, list []Proof) []byte {
	dst = append(dst, byte(len(list)))
	for i := range list {
		dst = binary.BigEndian.AppendUint32(dst, list[i].Epoch)
		dst = append(dst, list[i].MAC[:]...)
	}
	return dst
}

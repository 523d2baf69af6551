package lane

import (
	"encoding/binary"

	"github.com/aethertunnel/aethertunnel/crypto/kem"
)

// maxRetired bounds the list of retired connection IDs of one message: all there can be.
const maxRetired = ConnectionIDs

// Renewal is what both ratchet messages say about connection IDs. Both lists are complete, not a change to an
// earlier message that may have been lost with its session.
type Renewal struct {
	// Retired are the sequence numbers of the receiver's connection IDs, of those it has issued, that the sender will
	// not use any more, ascending.
	Retired []uint32
	// Issued are all connection IDs of the sender that the receiver may use from now on, ascending by sequence number.
	Issued []IssuedID
}

// RatchetRequest begins the next epoch. Only the client of the session sends it.
type RatchetRequest struct {
	Number uint8
	Lane   ID
	// Epoch is the new one.
	Epoch     uint32
	Renewal   Renewal
	PublicKey [kem.PublicBytes]byte
}

// Append appends the message.
func (r *RatchetRequest) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindRatchetRequest, r.Number, r.Lane)
	dst = binary.BigEndian.AppendUint32(dst, r.Epoch)
	dst = appendRenewal(dst, &r.Renewal)
	return append(dst, r.PublicKey[:]...)
}

func (d *decoder) ratchetRequest(h Header) *RatchetRequest {
	r := &RatchetRequest{Number: h.Number, Lane: h.ID, Epoch: d.u32()}
	d.check(r.Epoch > 0)
	d.renewal(&r.Renewal)
	d.fill(r.PublicKey[:])
	return r
}

// RatchetAnswer says that the new epoch is installed for opening.
type RatchetAnswer struct {
	Number     uint8
	Lane       ID
	Epoch      uint32
	Renewal    Renewal
	Ciphertext [kem.CiphertextBytes]byte
}

// Append appends the message.
func (r *RatchetAnswer) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindRatchetAnswer, r.Number, r.Lane)
	dst = binary.BigEndian.AppendUint32(dst, r.Epoch)
	dst = appendRenewal(dst, &r.Renewal)
	return append(dst, r.Ciphertext[:]...)
}

func (d *decoder) ratchetAnswer(h Header) *RatchetAnswer {
	r := &RatchetAnswer{Number: h.Number, Lane: h.ID, Epoch: d.u32()}
	d.check(r.Epoch > 0)
	d.renewal(&r.Renewal)
	d.fill(r.Ciphertext[:])
	return r
}

func (d *decoder) renewal(r *Renewal) {
	next := uint64(0)
	for range d.count(0, maxRetired) {
		s := d.u32()
		d.check(uint64(s) >= next)
		r.Retired, next = append(r.Retired, s), uint64(s)+1
	}
	next = 0
	for range d.count(1, ConnectionIDs) {
		id := IssuedID{Sequence: d.u32()}
		d.fill(id.ID[:])
		d.fill(id.Token[:])
		d.check(uint64(id.Sequence) >= next)
		r.Issued, next = append(r.Issued, id), uint64(id.Sequence)+1
	}
	d.check(distinct(r.Issued))
}

func appendRenewal(dst []byte, r *Renewal) []byte {
	dst = append(dst, byte(len(r.Retired)))
	for _, s := range r.Retired {
		dst = binary.BigEndian.AppendUint32(dst, s)
	}
	dst = append(dst, byte(len(r.Issued)))
	for i := range r.Issued {
		dst = binary.BigEndian.AppendUint32(dst, r.Issued[i].Sequence)
		dst = append(dst, r.Issued[i].ID[:]...)
		dst = append(dst, r.Issued[i].Token[:]...)
	}
	return dst
}

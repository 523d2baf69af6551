package lane

import (
	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/kem"
)

// Accept answers an offer: the lane exists.
type Accept struct {
	Number uint8
	Offer  OfferID
	// Suite is one of the offer's.
	Suite aead.Suite
	// MaxPacketBytes is the longest UDP payload that the sender takes.
	MaxPacketBytes uint16
	Contexts       []Context
	// IssuedIDs have the sequence numbers 0 to 3.
	IssuedIDs  [ConnectionIDs]IssuedID
	Ciphertext [kem.CiphertextBytes]byte
}

// Append appends the message.
func (a *Accept) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindAccept, a.Number, a.Offer)
	dst = append(dst, byte(a.Suite), byte(a.MaxPacketBytes>>8), byte(a.MaxPacketBytes))
	dst = appendContexts(dst, a.Contexts)
	dst = appendFirstIDs(dst, &a.IssuedIDs)
	return append(dst, a.Ciphertext[:]...)
}

func (d *decoder) accept(h Header) *Accept {
	a := &Accept{Number: h.Number, Offer: h.ID, Suite: aead.Suite(d.u8()), MaxPacketBytes: d.u16()}
	d.check(a.Suite.Valid())
	d.check(a.MaxPacketBytes >= MinMaxPacketBytes && a.MaxPacketBytes <= MaxMaxPacketBytes)
	a.Contexts = d.contexts(1)
	d.firstIDs(&a.IssuedIDs)
	d.fill(a.Ciphertext[:])
	return a
}

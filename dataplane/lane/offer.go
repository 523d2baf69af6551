package lane

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/kem"
)

// ContextKind says what the payload of a DATAGRAM frame with a registered context is.
type ContextKind uint8

// The kinds of contexts. A side ignores a kind that it does not know.
const (
	// ContextPartialChecksum is one IP packet whose transport checksum holds only the pseudo-header's part.
	ContextPartialChecksum ContextKind = 1
	// ContextSmallPackets is several small IP packets.
	ContextSmallPackets ContextKind = 2
	// ContextPiece is a piece of an IP packet that was split.
	ContextPiece ContextKind = 3
	// ContextRepair is forward error correction.
	ContextRepair ContextKind = 4
)

// Context is a context ID that its side takes, with what it stands for there. The other side sends with it.
type Context struct {
	// ID is 1 to 63; the one who offers registers even numbers, the one who accepts odd ones (RFC 9484 section 5).
	ID   uint8
	Kind ContextKind
}

// IssuedID is a connection ID that its issuer takes packets for.
type IssuedID struct {
	// Sequence numbers the connection IDs of one side from 0. None is used twice.
	Sequence uint32
	ID       ConnectionID
	Token    ResetToken
}

// Offer asks the other side for a lane. Only the client of the session sends it.
type Offer struct {
	Number uint8
	// QuarterStreamID is the session's, for DATAGRAM frames; it stays for the lane's life, through every later session.
	QuarterStreamID uint8
	// MaxPacketBytes is the longest UDP payload that the sender takes.
	MaxPacketBytes uint16
	// Suites are in order of preference, none twice. Suites of a later revision may be among them.
	Suites   []aead.Suite
	Contexts []Context
	// IssuedIDs have the sequence numbers 0 to 3.
	IssuedIDs [ConnectionIDs]IssuedID
	PublicKey [kem.PublicBytes]byte
}

// Append appends the message.
func (o *Offer) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindOffer, o.Number, [IDBytes]byte{})
	dst = append(dst, o.QuarterStreamID, byte(o.MaxPacketBytes>>8), byte(o.MaxPacketBytes), byte(len(o.Suites)))
	for _, s := range o.Suites {
		dst = append(dst, byte(s))
	}
	dst = appendContexts(dst, o.Contexts)
	dst = appendFirstIDs(dst, &o.IssuedIDs)
	return append(dst, o.PublicKey[:]...)
}

// OfferIDOf names the offer with these bytes.
func OfferIDOf(message []byte) OfferID {
	sum := sha256.Sum256(message)
	return OfferID(sum[:IDBytes])
}

func (d *decoder) offer(h Header) *Offer {
	o := &Offer{Number: h.Number, QuarterStreamID: d.u8(), MaxPacketBytes: d.u16()}
	d.check(o.QuarterStreamID <= MaxQuarterStreamID)
	d.check(o.MaxPacketBytes >= MinMaxPacketBytes && o.MaxPacketBytes <= MaxMaxPacketBytes)
	for range d.count(1, MaxSuites) {
		s := aead.Suite(d.u8())
		d.check(s != 0 && !slices.Contains(o.Suites, s))
		o.Suites = append(o.Suites, s)
	}
	o.Contexts = d.contexts(0)
	d.firstIDs(&o.IssuedIDs)
	d.fill(o.PublicKey[:])
	return o
}

// contexts reads a list whose IDs are odd or even, as parity says, in ascending order.
func (d *decoder) contexts(parity uint8) []Context {
	var list []Context
	last := uint8(0)
	for range d.count(0, MaxContexts) {
		c := Context{ID: d.u8(), Kind: ContextKind(d.u8())}
		d.check(c.ID > last && c.ID <= 63 && c.ID&1 == parity)
		d.check(!slices.ContainsFunc(list, func(o Context) bool { return o.Kind == c.Kind }))
		list, last = append(list, c), c.ID
	}
	return list
}

func appendContexts(dst []byte, list []Context) []byte {
	dst = append(dst, byte(len(list)))
	for _, c := range list {
		dst = append(dst, c.ID, byte(c.Kind))
	}
	return dst
}

// firstIDs reads the connection IDs of an offer or an accept, whose sequence numbers go without saying.
func (d *decoder) firstIDs(ids *[ConnectionIDs]IssuedID) {
	for i := range ids {
		ids[i].Sequence = uint32(i)
		d.fill(ids[i].ID[:])
		d.fill(ids[i].Token[:])
	}
	d.check(distinct(ids[:]))
}

func appendFirstIDs(dst []byte, ids *[ConnectionIDs]IssuedID) []byte {
	for i := range ids {
		dst = append(dst, ids[i].ID[:]...)
		dst = append(dst, ids[i].Token[:]...)
	}
	return dst
}

// distinct reports whether no connection ID is twice in the list.
func distinct(ids []IssuedID) bool {
	for i := range ids {
		for j := range i {
			if bytes.Equal(ids[i].ID[:], ids[j].ID[:]) {
				return false
			}
		}
	}
	return true
}

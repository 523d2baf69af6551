package path

import "encoding/binary"

const (
	// PieceHeaderBytes is the length of what stands before the bytes of a piece (lane.ContextPiece):
	//
	//	0      1      2      3
	//	+------+------+------+----------------
	//	|  packet id  |L idx | bytes of packet
	//	+------+------+------+----------------
	//
	// The id is big-endian. The high bit of the third byte marks the last piece, its low seven bits are the index, from
	// 0. All pieces of a packet are equally long but for the last, which may be shorter; none is empty.
	PieceHeaderBytes = 3
	// MaxPieces is how many pieces a packet has at most.
	MaxPieces = 128
	// MaxPacketBytes is the longest packet that is split or joined.
	MaxPacketBytes = 65535

	lastPiece = 0x80
	indexMask = 0x7f
)

// Splitter cuts the packets of one lane that are too long for it. The zero value is ready.
type Splitter struct{ next uint16 }

// Split is a packet to be sent in pieces: where to cut, and what to write before each.
type Split struct {
	id          uint16
	pieces      int
	pieceBytes  int
	packetBytes int
}

// Split plans the pieces of a packet. roomBytes is how long the payload of a DATAGRAM frame may be, the header of the
// piece included. The pieces are about equally long, so that they fit one train. It returns false for what no pieces can
// carry: nothing, more than [MaxPacketBytes], or more than [MaxPieces].
func (s *Splitter) Split(packetBytes, roomBytes int) (Split, bool) {
	room := roomBytes - PieceHeaderBytes
	if packetBytes < 1 || packetBytes > MaxPacketBytes || room < 1 {
		return Split{}, false
	}
	pieces := (packetBytes + room - 1) / room
	if pieces > MaxPieces {
		return Split{}, false
	}
	pieceBytes := (packetBytes + pieces - 1) / pieces
	s.next++
	return Split{s.next, pieces, pieceBytes, packetBytes}, true
}

// Pieces returns how many pieces there are.
func (s *Split) Pieces() int { return s.pieces }

// Piece returns which bytes of the packet piece k carries. k is below Pieces.
func (s *Split) Piece(k int) (from, to int) {
	from = k * s.pieceBytes
	return from, min(from+s.pieceBytes, s.packetBytes)
}

// PutHeader writes what stands before the bytes of piece k. Where that is the end of piece k-1, that one must have been
// sealed already.
func (s *Split) PutHeader(b *[PieceHeaderBytes]byte, k int) {
	binary.BigEndian.PutUint16(b[:2], s.id)
	b[2] = byte(k)
	if k == s.pieces-1 {
		b[2] |= lastPiece
	}
}

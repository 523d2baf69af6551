package path

import (
	"encoding/binary"
	"math/bits"
)

const (
	// MaxUnfinished is how many packets of a lane may lack pieces at a time.
	MaxUnfinished = 64
	// UnfinishedNanos is how long a packet may lack pieces.
	UnfinishedNanos = 500 * millisecond
	// maxUnfinishedBytes bounds the buffers of one lane's unfinished packets: one peer must not use up those of all.
	maxUnfinishedBytes = 1 << 20
	// maxApart is how far apart the lane packet numbers of two pieces of one packet can be: the lane's replay window
	// lets nothing older in. Further apart the 16-bit id has come round.
	maxApart = 8192 + MaxPieces

	noneLast = -1
)

// PieceResult says what became of a piece.
type PieceResult uint8

// The results.
const (
	// PieceTaken means that the packet still lacks pieces.
	PieceTaken PieceResult = iota
	// PieceJoined means that the packet is complete.
	PieceJoined
	// PieceDropped means that the piece, and all of its packet that was there, was dropped; [JoinStats] says why.
	PieceDropped
)

// JoinStats counts what a joiner has done. Joined and everything but Malformed and Ignored are packets, those are
// pieces.
type JoinStats struct {
	Joined       uint64 // complete
	Inconsistent uint64 // pieces that contradict each other
	Duplicate    uint64 // a piece that was there already
	TooLong      uint64 // more than MaxPacketBytes
	Expired      uint64 // lacked pieces for UnfinishedNanos
	Evicted      uint64 // too many unfinished ones: the oldest had to go
	NoBuffer     uint64 // too many bytes unfinished in all lanes
	Malformed    uint64 // pieces without a byte of packet
	Ignored      uint64 // pieces of packets that had been dropped
}

// Dropped returns how many packets and pieces were dropped.
func (s *JoinStats) Dropped() uint64 {
	return s.Inconsistent + s.Duplicate + s.TooLong + s.Expired + s.Evicted + s.NoBuffer + s.Malformed + s.Ignored
}

// unfinished is a packet that lacks pieces. Without a buffer it was dropped, and its other pieces are to be ignored.
type unfinished struct {
	buffer     *pieceBuffer
	got        [MaxPieces / 64]uint64
	number     uint64 // of the lane packet that brought the first piece to come
	startNanos int64
	pieces     int // that came
	last       int // index of the last one, or noneLast
	lastBytes  int
	pieceBytes int // of all others, or 0 while none has come
	id         uint16
	congested  bool // a piece has come with a congestion mark
}

// Joiner puts the packets of one lane together from pieces. It is for one goroutine.
type Joiner struct {
	buffers *PieceBuffers
	stats   JoinStats
	bytes   int // of buffers of unfinished packets
	n       int // of list
	list    [MaxUnfinished]unfinished
	done    *pieceBuffer // joined and not released
}

// NewJoiner makes a joiner. It takes about 6 KB: make it when a lane's first piece comes.
func NewJoiner(buffers *PieceBuffers) *Joiner { return &Joiner{buffers: buffers} }

// Piece is what a lane packet has brought of a packet.
type Piece struct {
	Payload   []byte // of a DATAGRAM frame of context lane.ContextPiece
	Number    uint64 // of the lane packet
	Congested bool   // the lane packet was marked: Congestion Experienced (RFC 3168 section 5)
}

// Add takes a piece. With [PieceJoined] it returns the whole packet, which stays as it is until Release (one that came in
// a single piece as long as its payload does), and whether any of its pieces was congested (RFC 3168 section 5.3). It has
// been checked in no way.
func (j *Joiner) Add(p Piece, nowNanos int64) (packet []byte, congested bool, result PieceResult) {
	payload, number := p.Payload, p.Number
	if len(payload) <= PieceHeaderBytes {
		j.stats.Malformed++
		return nil, false, PieceDropped
	}
	id := binary.BigEndian.Uint16(payload)
	index, last := int(payload[2]&indexMask), payload[2]&lastPiece != 0
	u := j.find(id, number, nowNanos)
	if u == nil {
		if last && index == 0 {
			j.stats.Joined++
			return payload[PieceHeaderBytes:], p.Congested, PieceJoined
		}
		u = j.start(id, number, nowNanos)
	}
	if u.buffer == nil && u.pieces > 0 {
		j.stats.Ignored++
		return nil, false, PieceDropped
	}
	u.congested = u.congested || p.Congested
	congested = u.congested // place may be done with u
	packet, result = j.place(u, index, last, payload[PieceHeaderBytes:])
	return packet, congested, result
}

// place puts a piece where it belongs.
func (j *Joiner) place(u *unfinished, index int, last bool, data []byte) ([]byte, PieceResult) {
	word, bit := index/64, uint64(1)<<(index%64)
	reason := &j.stats.Inconsistent
	switch {
	case u.got[word]&bit != 0:
		reason = &j.stats.Duplicate
	case !u.fits(index, last, len(data)):
	case u.tooLong(index, last, len(data)):
		reason = &j.stats.TooLong
	case !j.store(u, index, last, data):
		reason = &j.stats.NoBuffer
	default:
		u.got[word] |= bit
		u.pieces++
		if u.pieces != u.last+1 {
			return nil, PieceTaken
		}
		return j.finish(u), PieceJoined
	}
	u.pieces++ // it is in use even if this was the first
	j.drop(u, reason)
	return nil, PieceDropped
}

// fits reports whether a piece agrees with those that have come.
func (u *unfinished) fits(index int, last bool, bytes int) bool {
	if last {
		return u.last == noneLast && index > u.highest() && (u.pieceBytes == 0 || bytes <= u.pieceBytes)
	}
	if u.last != noneLast && (index > u.last || bytes < u.lastBytes) {
		return false
	}
	return u.pieceBytes == 0 || bytes == u.pieceBytes
}

// highest returns the highest index that has come, or -1.
func (u *unfinished) highest() int {
	for word := len(u.got) - 1; word >= 0; word-- {
		if u.got[word] != 0 {
			return word*64 + bits.Len64(u.got[word]) - 1
		}
	}
	return -1
}

// tooLong reports whether the packet would be longer than any packet.
func (u *unfinished) tooLong(index int, last bool, bytes int) bool {
	switch {
	case last && u.pieceBytes > 0:
		return index*u.pieceBytes+bytes > MaxPacketBytes
	case last:
		return (index+1)*bytes > MaxPacketBytes // the others are no shorter
	case u.last != noneLast:
		return u.last*bytes+u.lastBytes > MaxPacketBytes
	}
	return (index+1)*bytes > MaxPacketBytes
}

// store copies a piece to its place. The last one, if it is the first to come, has none yet and waits at the front. It
// returns false when there is no buffer.
func (j *Joiner) store(u *unfinished, index int, last bool, data []byte) bool {
	if last && u.pieceBytes == 0 {
		if !j.reserve(u, len(data), 0) {
			return false
		}
		u.last, u.lastBytes = index, len(data)
		copy(u.buffer.data, data)
		return true
	}
	if last {
		u.last, u.lastBytes = index, len(data)
	}
	first := u.pieceBytes == 0
	if first {
		u.pieceBytes = len(data)
	}
	needed := index*u.pieceBytes + len(data)
	if u.last != noneLast {
		needed = u.last*u.pieceBytes + u.lastBytes
	}
	kept := min((u.highest()+1)*u.pieceBytes, MaxPacketBytes)
	if first {
		kept = u.lastBytes
	}
	if !j.reserve(u, needed, kept) {
		return false
	}
	if first && u.lastBytes > 0 {
		copy(u.buffer.data[u.last*u.pieceBytes:], u.buffer.data[:u.lastBytes]) // the front is for piece 0
	}
	copy(u.buffer.data[index*u.pieceBytes:], data)
	return true
}

// reserve makes the buffer of a packet at least as long as needed, of which the first kept bytes count already.
func (j *Joiner) reserve(u *unfinished, neededBytes, keptBytes int) bool {
	if u.buffer != nil && len(u.buffer.data) >= neededBytes {
		return true
	}
	class := pieceClass(neededBytes)
	if j.bytes+pieceClasses[class] > maxUnfinishedBytes {
		return false
	}
	b := j.buffers.get(class)
	if b == nil {
		return false
	}
	j.bytes += len(b.data)
	if u.buffer != nil {
		copy(b.data, u.buffer.data[:min(keptBytes, len(u.buffer.data))])
		j.letGo(u)
	}
	u.buffer = b
	return true
}

// finish takes a complete packet out of the list.
func (j *Joiner) finish(u *unfinished) []byte {
	b := u.buffer
	packet := b.data[:u.last*u.pieceBytes+u.lastBytes]
	b.next, j.done = j.done, b
	j.bytes -= len(b.data)
	j.remove(u)
	j.stats.Joined++
	return packet
}

// find returns the packet that a piece belongs to, if there is one.
func (j *Joiner) find(id uint16, number uint64, nowNanos int64) *unfinished {
	for i := range j.list[:j.n] {
		u := &j.list[i]
		if u.id != id {
			continue
		}
		if nowNanos-u.startNanos < UnfinishedNanos && max(number, u.number)-min(number, u.number) <= maxApart {
			return u
		}
		j.expire(u)
		return nil
	}
	return nil
}

// start makes room for a packet that no piece of has come yet.
func (j *Joiner) start(id uint16, number uint64, nowNanos int64) *unfinished {
	if j.n == len(j.list) {
		j.Expire(nowNanos)
	}
	if j.n == len(j.list) {
		oldest := &j.list[0]
		for i := range j.list[1:] {
			if u := &j.list[i+1]; u.startNanos < oldest.startNanos {
				oldest = u
			}
		}
		if oldest.buffer != nil {
			j.stats.Evicted++
			j.letGo(oldest)
		}
		j.remove(oldest)
	}
	u := &j.list[j.n]
	j.n++
	*u = unfinished{id: id, number: number, startNanos: nowNanos, last: noneLast}
	return u
}

// Expire drops the packets that have lacked pieces for too long. It need not be called: what is too old is never
// joined, and its memory is bounded.
func (j *Joiner) Expire(nowNanos int64) {
	for i := j.n - 1; i >= 0; i-- {
		if u := &j.list[i]; nowNanos-u.startNanos >= UnfinishedNanos {
			j.expire(u)
		}
	}
}

// Unfinished returns how many packets lack pieces.
func (j *Joiner) Unfinished() int { return j.n }

func (j *Joiner) expire(u *unfinished) {
	if u.buffer != nil {
		j.stats.Expired++
		j.letGo(u)
	}
	j.remove(u)
}

// drop drops what there is of a packet and remembers to ignore the rest.
func (j *Joiner) drop(u *unfinished, reason *uint64) {
	*reason++
	if u.buffer != nil {
		j.letGo(u)
	}
}

// letGo gives the buffer of a packet back.
func (j *Joiner) letGo(u *unfinished) {
	j.bytes -= len(u.buffer.data)
	j.buffers.put(u.buffer)
	u.buffer = nil
}

// remove takes a packet out of the list, whose last one takes its place.
func (j *Joiner) remove(u *unfinished) {
	j.n--
	*u = j.list[j.n]
	j.list[j.n].buffer = nil
}

// Release ends the use of all packets that Add has returned. It belongs at the end of every batch.
func (j *Joiner) Release() {
	for b := j.done; b != nil; {
		next := b.next
		j.buffers.put(b)
		b = next
	}
	j.done = nil
}

// Close gives all buffers back, those of packets that were returned too. The joiner is as new.
func (j *Joiner) Close() {
	j.Release()
	for j.n > 0 {
		j.expire(&j.list[j.n-1])
	}
}

// TakeStats returns what was counted since the last call.
func (j *Joiner) TakeStats() JoinStats {
	s := j.stats
	j.stats = JoinStats{}
	return s
}

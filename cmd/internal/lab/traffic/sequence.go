package traffic

import (
	"encoding/binary"
	"fmt"
	"io"
)

// tally is what became of numbered packets.
type tally struct {
	received   int64 // each number once
	duplicates int64
	reordered  int64 // arrived behind a higher number
	drops      int64 // by the socket they were sent to
}

// sequence counts packets by their numbers, exactly.
type sequence struct {
	tally
	seen    []uint64 // a bit per number
	packets uint32
	next    uint32 // one above the highest number so far
}

func newSequence(packets int) *sequence {
	return &sequence{seen: make([]uint64, (packets+63)/64), packets: uint32(packets)}
}

// add counts a packet and tells whether it is the first one of its number; one out of range is ignored.
func (s *sequence) add(number uint32) bool {
	if number >= s.packets {
		return false
	}
	word, bit := number/64, uint64(1)<<(number%64)
	switch {
	case s.seen[word]&bit != 0:
		s.duplicates++
		return false
	case number < s.next:
		s.reordered++
	default:
		s.next = number + 1
	}
	s.seen[word] |= bit
	s.received++
	return true
}

// A tally is sent as received 8 | duplicates 8 | reordered 8 | drops 8.
const tallyBytes = 32

func (t tally) encode() []byte {
	b := make([]byte, 0, tallyBytes)
	for _, count := range []int64{t.received, t.duplicates, t.reordered, t.drops} {
		b = binary.BigEndian.AppendUint64(b, uint64(count))
	}
	return b
}

func readTally(r io.Reader) (tally, error) {
	var b [tallyBytes]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return tally{}, fmt.Errorf("read the tally: %w", err)
	}
	var counts [4]int64
	for i := range counts {
		counts[i] = int64(binary.BigEndian.Uint64(b[8*i:]))
		if counts[i] < 0 {
			return tally{}, fmt.Errorf("the tally counts %d", counts[i])
		}
	}
	return tally{received: counts[0], duplicates: counts[1], reordered: counts[2], drops: counts[3]}, nil
}

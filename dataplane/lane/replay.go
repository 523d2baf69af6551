package lane

// ReplayWindow is how far behind the highest opened number a packet may be, in packets.
const ReplayWindow = 8192

const (
	wordBits = 64
	// One word more than the window has bits for, so that the word being filled costs none of it (RFC 6479).
	windowWords = ReplayWindow/wordBits + 1
)

// window remembers which packet numbers were opened, as a ring of words that moves by whole words (RFC 6479). The zero
// window has seen none.
type window struct {
	next uint64 // one more than the highest number seen
	ring [windowWords]uint64
}

// accept marks number as seen and returns [VerdictOK], or [VerdictReplayed] or [VerdictOld] and changes nothing.
func (w *window) accept(number uint64) Verdict {
	word := number / wordBits
	if number >= w.next {
		w.advance(word)
		w.next = number + 1
	} else if w.next-number > ReplayWindow {
		return VerdictOld
	}
	slot, bit := &w.ring[word%windowWords], uint64(1)<<(number%wordBits)
	if *slot&bit != 0 {
		return VerdictReplayed
	}
	*slot |= bit
	return VerdictOK
}

// advance empties the words from the one after the highest number's up to and including word.
func (w *window) advance(word uint64) {
	if w.next == 0 {
		return // all are empty
	}
	last := (w.next - 1) / wordBits
	for n := min(word-last, windowWords); n > 0; n-- {
		w.ring[word%windowWords] = 0
		word--
	}
}

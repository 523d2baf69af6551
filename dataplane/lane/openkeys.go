package lane

import (
	"fmt"
	"math"
)

// noneOpened stands for the number of a packet opened with a key that has opened none.
const noneOpened = math.MaxUint64

// keySet is what an opener can open at one moment. Every change makes a new set.
type keySet struct {
	current  *openKey
	next     *openKey // of the epoch after, or nil
	previous *openKey // of the epoch before, or nil
	// previousUntilNanos is when previous ends.
	previousUntilNanos int64
	// first is the number of the first packet opened with current. Numbers never restart, so below it lie the packets of
	// the epoch before and above it those of the epoch after, which have the same phase bit (RFC 9001 section 6.5).
	first uint64
}

// other selects the key for a packet whose phase is not the current one's. Where there is none it returns the current
// key and false: opening with it fails and takes as long as with the right one.
func (s *keySet) other(number uint64, nowNanos int64) (*openKey, bool) {
	key := s.next
	if number < s.first {
		if s.previous != nil && nowNanos < s.previousUntilNanos {
			return s.previous, true
		}
		if s.first != noneOpened {
			key = nil
		}
	}
	if key == nil {
		return s.current, false
	}
	return key, true
}

// opened takes note of an authentic packet that changes the key set: the first of the next epoch, or of the current
// one.
func (o *Opener) opened(key *openKey, number uint64, nowNanos int64) {
	for {
		set := o.keys.Load()
		changed := *set
		switch {
		case key == set.next:
			changed = keySet{
				current: key, first: number,
				previous: set.current, previousUntilNanos: nowNanos + PreviousKeyNanos,
			}
		case key == set.current && set.first == noneOpened:
			changed.first = number
		default:
			return // of the epoch before, or somebody has changed the set in the meantime
		}
		if o.keys.CompareAndSwap(set, &changed) {
			return
		}
	}
}

// Epoch returns the epoch that packets are opened with, and whether one has been: a server seals with an epoch, and
// a client may start the next ratchet, once that is so. Any goroutine may call it.
func (o *Opener) Epoch() (epoch uint32, opened bool) {
	set := o.keys.Load()
	return set.current.epoch, set.first != noneOpened
}

// Install adds the keys of the epoch after the current one, at once. The first packet that opens with them makes them
// the current ones. Keys of that epoch that were installed before are replaced. Any goroutine may call it. Errors:
// [ErrKeyEpoch], [ErrKeySuite].
func (o *Opener) Install(keys Keys) error {
	if !keys.fits(o.header) {
		return fmt.Errorf("install opening keys: %w", ErrKeySuite)
	}
	key := newOpenKey(keys)
	return o.change("install opening keys", func(set *keySet) error {
		if uint64(keys.Epoch) != uint64(set.current.epoch)+1 {
			return fmt.Errorf("%w: %d after %d", ErrKeyEpoch, keys.Epoch, set.current.epoch)
		}
		if set.first == noneOpened {
			set.previous = nil // nothing would tell its packets from those of the new epoch
		}
		set.next = key
		return nil
	})
}

// Keep makes epoch, the current or the next one, the current one without waiting for a packet, because both ends have
// agreed on it at an adoption. Keys of a later epoch are dropped; the one before is kept for [PreviousKeyNanos] from
// now, as after every change. Any goroutine may call it. The error is [ErrKeyEpoch].
func (o *Opener) Keep(epoch uint32, nowNanos int64) error {
	return o.change("keep opening keys", func(set *keySet) error {
		switch {
		case epoch == set.current.epoch:
			set.next = nil
		case set.next != nil && epoch == set.next.epoch:
			*set = keySet{
				current: set.next, first: noneOpened,
				previous: set.current, previousUntilNanos: nowNanos + PreviousKeyNanos,
			}
		default:
			return fmt.Errorf("%w: %d is not held", ErrKeyEpoch, epoch)
		}
		return nil
	})
}

// Expire drops the key of the epoch before if its time is over, and reports whether there is none left. Open never uses
// it past its time; this makes it unreachable. Any goroutine may call it.
func (o *Opener) Expire(nowNanos int64) bool {
	for {
		set := o.keys.Load()
		if set.previous == nil {
			return true
		}
		if nowNanos < set.previousUntilNanos {
			return false
		}
		changed := *set
		changed.previous = nil
		if o.keys.CompareAndSwap(set, &changed) {
			return true
		}
	}
}

func (o *Opener) change(operation string, edit func(*keySet) error) error {
	for {
		set := o.keys.Load()
		changed := *set
		if err := edit(&changed); err != nil {
			return fmt.Errorf("%s: %w", operation, err)
		}
		if o.keys.CompareAndSwap(set, &changed) {
			return nil
		}
	}
}

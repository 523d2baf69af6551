package dataplane

import (
	"hash/maphash"
	"sync"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// resetTable finds the lane that a stateless reset ends (RFC 9000 section 10.3.1). Every packet of QUIC's that may be one
// is looked up, no lane packet is. A token is found by a keyed hash and compared in constant time, so that nobody learns
// one from how long the search takes.
type resetTable struct {
	seed maphash.Seed

	mu    sync.RWMutex
	lanes map[uint64]resettable
}

type resettable struct {
	token lane.ResetToken
	lane  *Lane
}

func newResetTable() resetTable {
	return resetTable{seed: maphash.MakeSeed(), lanes: make(map[uint64]resettable)}
}

func (t *resetTable) hash(token lane.ResetToken) uint64 { return maphash.Bytes(t.seed, token[:]) }

func (t *resetTable) add(token lane.ResetToken, l *Lane) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lanes[t.hash(token)] = resettable{token, l}
}

func (t *resetTable) remove(token lane.ResetToken) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.lanes, t.hash(token))
}

// find returns nil for a packet that is not a stateless reset of a lane.
func (t *resetTable) find(packet []byte) *Lane {
	token, ok := lane.ResetTokenOf(packet)
	if !ok {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if known, ok := t.lanes[t.hash(token)]; ok && known.token.Equal(token) {
		return known.lane
	}
	return nil
}

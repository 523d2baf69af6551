package dataplane

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// laneTable finds the lane of a connection ID. Reading takes no lock; a change copies one of many small maps.
type laneTable struct {
	ended  *Lane      // stands for lanes that have ended a moment ago
	mu     sync.Mutex // orders changes
	shards [256]atomic.Pointer[map[lane.ConnectionID]*Lane]
}

func newLaneTable() laneTable { return laneTable{ended: &Lane{}} }

func (t *laneTable) shard(id lane.ConnectionID) *atomic.Pointer[map[lane.ConnectionID]*Lane] {
	return &t.shards[id[len(id)-1]]
}

// find returns nil for an ID that no lane takes packets for, and ended for one whose lane has just ended.
func (t *laneTable) find(id lane.ConnectionID) *Lane {
	m := t.shard(id).Load()
	if m == nil {
		return nil
	}
	return (*m)[id]
}

func (t *laneTable) add(id lane.ConnectionID, l *Lane) {
	t.change(id, func(m map[lane.ConnectionID]*Lane) { m[id] = l })
}

func (t *laneTable) remove(id lane.ConnectionID) {
	t.change(id, func(m map[lane.ConnectionID]*Lane) { delete(m, id) })
}

// end has packets for connection IDs of a lane that is over dropped for a while: the peer, who may not have heard of the
// end, would take QUIC's answer to them, a stateless reset, for the end of everything.
func (t *laneTable) end(ids []lane.ConnectionID) {
	for _, id := range ids {
		t.add(id, t.ended)
	}
	time.AfterFunc(lane.KeepFor, func() {
		for _, id := range ids {
			t.remove(id)
		}
	})
}

func (t *laneTable) change(id lane.ConnectionID, edit func(map[lane.ConnectionID]*Lane)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := make(map[lane.ConnectionID]*Lane)
	if m := t.shard(id).Load(); m != nil {
		next = maps.Clone(*m)
	}
	edit(next)
	t.shard(id).Store(&next)
}

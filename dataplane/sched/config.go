package sched

import (
	"errors"
	"fmt"
)

// Defaults of Config.
const (
	DefaultTargetNanos   = 5_000_000
	DefaultIntervalNanos = 100_000_000
	DefaultQuantumBytes  = 1514
	DefaultLimitPackets  = 1024
	DefaultLimitBytes    = 4 << 20
	DefaultQueueFlows    = 1024
	DefaultPoolItems     = 65536
	DefaultPoolFlows     = 16384
)

// Bounds of Config.
const (
	maxIntervalNanos = 10_000_000_000
	maxQuantumBytes  = 1 << 20
	maxLimit         = 1 << 30
)

// Reason says why an item was dropped.
type Reason uint8

// The reasons for a drop.
const (
	DropCoDel    Reason = iota // it waited too long for too long (RFC 8289)
	DropLimit                  // its queue had too many items or bytes and its flow the most bytes
	DropPool                   // all queues together had too many items and its queue the most bytes
	DropCleared                // Queue.Clear
	ReasonsCount               // number of reasons
)

// String is a word for counters.
func (r Reason) String() string {
	switch r {
	case DropCoDel:
		return "codel"
	case DropLimit:
		return "limit"
	case DropPool:
		return "pool"
	case DropCleared:
		return "cleared"
	case ReasonsCount:
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Config is how the queues of a Pool behave. Zero fields mean the defaults.
type Config[T any] struct {
	// TargetNanos is the standing delay that a flow may have, and IntervalNanos how long it may have more
	// before its items are dropped or marked (RFC 8289 sections 4.3 and 4.4).
	TargetNanos, IntervalNanos int64
	// QuantumBytes is what a flow may send in its turn. A flow that sends less between two turns is sparse
	// and goes first (RFC 8290 section 3). It is also the backlog that is never too much: together with the
	// flow's longest item it is CoDel's maxpacket.
	QuantumBytes int
	// LimitPackets and LimitBytes bound one queue.
	LimitPackets, LimitBytes int
	// QueueFlows bounds the flows of one queue that are told apart; further ones share one.
	QueueFlows int
	// PoolItems and PoolFlows bound all queues of the pool together.
	PoolItems, PoolFlows int
	// Mark tells the flow's sender of congestion instead of a drop, if it can, by a change of the item: an
	// ECN mark (RFC 3168), or a note that one segment of a super-packet be left out. It reports whether it
	// did. Nil: never.
	Mark func(*T) bool
	// Drop takes the items that are not returned by Pop. It must not call methods of the pool's queues. Nil
	// is for items that need no release.
	Drop func(T, Reason)
}

// ErrConfig is the kind of error of NewPool.
var ErrConfig = errors.New("scheduler configuration")

// complete fills in the defaults and checks the bounds.
func (c *Config[T]) complete() error {
	for _, f := range []struct {
		name       string
		value      *int64
		normal, at int64
	}{
		{"target", &c.TargetNanos, DefaultTargetNanos, maxIntervalNanos},
		{"interval", &c.IntervalNanos, DefaultIntervalNanos, maxIntervalNanos},
	} {
		if *f.value == 0 {
			*f.value = f.normal
		}
		if *f.value < 0 || *f.value > f.at {
			return fmt.Errorf("%w: %s of %d ns", ErrConfig, f.name, *f.value)
		}
	}
	for _, f := range []struct {
		name       string
		value      *int
		normal, at int
	}{
		{"quantum", &c.QuantumBytes, DefaultQuantumBytes, maxQuantumBytes},
		{"packet limit", &c.LimitPackets, DefaultLimitPackets, maxLimit},
		{"byte limit", &c.LimitBytes, DefaultLimitBytes, maxLimit},
		{"queue flows", &c.QueueFlows, DefaultQueueFlows, maxLimit},
		{"pool items", &c.PoolItems, DefaultPoolItems, maxLimit},
		{"pool flows", &c.PoolFlows, DefaultPoolFlows, maxLimit},
	} {
		if *f.value == 0 {
			*f.value = f.normal
		}
		if *f.value < 0 || *f.value > f.at {
			return fmt.Errorf("%w: %s of %d", ErrConfig, f.name, *f.value)
		}
	}
	return nil
}

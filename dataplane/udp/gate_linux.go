package udp

import "sync/atomic"

// gate counts who uses a descriptor, so that it is closed when nobody does: its number might be another file's at once.
type gate struct {
	users atomic.Int64 // from gateClosed upwards once closed
	last  chan struct{}
}

const gateClosed = -1 << 62

func newGate() *gate { return &gate{last: make(chan struct{}, 1)} }

// enter reports whether the descriptor may be used, until leave.
func (g *gate) enter() bool {
	if g.users.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.users.Add(-1) == gateClosed {
		select {
		case g.last <- struct{}{}:
		default: // others came too late and left, too
		}
	}
}

// isClosed reports whether shut has been called.
func (g *gate) isClosed() bool { return g.users.Load() < 0 }

// shut turns newcomers away. wait, called after it once, returns when the last user has left.
func (g *gate) shut() { g.users.Add(gateClosed) }

func (g *gate) wait() {
	if g.users.Load() != gateClosed {
		<-g.last
	}
}

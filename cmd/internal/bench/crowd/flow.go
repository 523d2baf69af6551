package crowd

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// segmentBytes is the TCP payload of a full packet, and trainSegments how many of them are sent at once.
	segmentBytes  = fullInnerBytes - headerBytes
	trainSegments = 32
	trainBytes    = trainSegments * segmentBytes

	// lostAfter is how long nothing of a train may arrive before what is missing of it is lost.
	lostAfter = 500 * time.Millisecond
)

// What a window may be at.
const (
	idle    = int32(iota)
	waiting // for its turn
	flying  // a train is under way
)

// window is one member's traffic in one direction: one train at a time.
type window struct {
	state           atomic.Int32
	sent, got       atomic.Uint64 // bytes of payload
	lastGot         uint64        // when the flow was looked at last
	lastSentAtCheck uint64
}

// flow is the traffic of all active members in one direction.
type flow struct {
	on    atomic.Bool
	ready chan *member // whose turn it is to send
	lost  atomic.Uint64

	done  chan struct{}
	ended sync.Once
}

func newFlow(active int) *flow {
	return &flow{ready: make(chan *member, active), done: make(chan struct{})}
}

// start has every member begin.
func (f *flow) start(members []*member) {
	f.on.Store(true)
	for _, m := range members {
		f.next(m, f.of(m))
	}
}

// of returns the member's window.
func (f *flow) of(m *member) *window {
	if m.crowd.flows[Up] == f {
		return &m.windows[Up]
	}
	return &m.windows[Down]
}

// next queues a member that has nothing under way.
func (f *flow) next(m *member, w *window) {
	if f.on.Load() && w.state.CompareAndSwap(idle, waiting) {
		f.ready <- m // it has room for all
	}
}

// depart is called before a train is sent.
func (w *window) depart(bytes uint64) {
	w.sent.Add(bytes)
	w.state.Store(flying)
}

// arrived is told of payload that has come.
func (f *flow) arrived(m *member, w *window, bytes uint64) {
	if w.got.Add(bytes) >= w.sent.Load() && w.state.CompareAndSwap(flying, idle) {
		f.next(m, w)
	}
}

// mend gives what is missing of trains of which nothing more comes up for lost. It is called every lostAfter.
func (f *flow) mend(members []*member) {
	for _, m := range members {
		w := f.of(m)
		got, sent := w.got.Load(), w.sent.Load()
		stuck := w.state.Load() == flying && got == w.lastGot && sent == w.lastSentAtCheck && got < sent
		w.lastGot, w.lastSentAtCheck = got, sent
		if stuck {
			f.lost.Add(sent - got)
			f.arrived(m, w, sent-got)
		}
	}
}

// end stops the flow for good.
func (f *flow) end() {
	f.on.Store(false)
	f.ended.Do(func() { close(f.done) })
}

// arrivedAt sums up what has arrived.
func arrivedAt(members []*member, d Direction) (bytes uint64) {
	for _, m := range members {
		bytes += m.windows[d].got.Load()
	}
	return bytes
}

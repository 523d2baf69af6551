package impair

// ring is a queue that grows as needed. The zero value is empty.
type ring[T any] struct {
	items []T // the length is a power of two
	head  int
	count int
}

func (r *ring[T]) len() int { return r.count }

// first returns the oldest item; the ring must not be empty.
func (r *ring[T]) first() *T { return &r.items[r.head] }

func (r *ring[T]) push(item T) {
	if r.count == len(r.items) {
		grown := make([]T, max(16, 2*len(r.items)))
		n := copy(grown, r.items[r.head:])
		copy(grown[n:], r.items[:r.head])
		r.items, r.head = grown, 0
	}
	r.items[(r.head+r.count)&(len(r.items)-1)] = item
	r.count++
}

// pop removes and returns the oldest item; the ring must not be empty.
func (r *ring[T]) pop() T {
	var zero T
	item := r.items[r.head]
	r.items[r.head] = zero
	r.head = (r.head + 1) & (len(r.items) - 1)
	r.count--
	return item
}

// Sizes of the buffers kept for reuse: an Ethernet frame of 1,500 bytes fits, and 8 MiB is the most
// that lies idle.
const (
	bufferBytes = 2048
	maxIdle     = 4096
)

// bufferPool keeps buffers of ordinary frames for reuse; longer ones are left to the garbage collector.
type bufferPool struct{ idle [][]byte }

func (p *bufferPool) copy(frame []byte) []byte {
	if len(frame) > bufferBytes {
		return append([]byte(nil), frame...)
	}
	if n := len(p.idle); n > 0 {
		b := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return append(b[:0], frame...)
	}
	return append(make([]byte, 0, bufferBytes), frame...)
}

func (p *bufferPool) put(b []byte) {
	if cap(b) == bufferBytes && len(p.idle) < maxIdle {
		p.idle = append(p.idle, b)
	}
}
